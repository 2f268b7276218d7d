"""A process that speaks the protocol of `VllmProcess` without vLLM: each row counts up from its prompt's last token.

Run as an interpreter (``-c`` for the version, a folder for the worker). ``FAKE_VLLM`` says what goes wrong: ``start``,
``kill N`` (it is killed when N rows are complete), ``memory N`` (it fails then), ``row N`` (this request fails),
``rows`` (all requests fail). With ``child`` it has a process under it, and ends for neither closed input nor SIGTERM.
"""

import json
import os
import signal
import subprocess
import sys
import time

WHAT, _, NUMBER = os.environ.get("FAKE_VLLM", "").partition(" ")


def tell(**message: object) -> None:
    print(json.dumps(message), flush=True)


def complete(row: int, message: dict) -> None:
    sampling, last = message["sampling"], message["prompt"][-1]
    ids: list[int] = []
    while len(ids) < sampling["max_tokens"]:
        ids.append(last + len(ids) + 1)
        if ids[-1] in sampling["stop_token_ids"]:
            break
    strengths = message["strengths"]
    steered = [len(strengths) * (len(message["prompt"]) + len(ids) - 1), 0.25] if strengths else [0, 0.0]
    tell(tokens=len(ids))
    tell(row=row, ids=ids, steered=steered, reused=0)


def main() -> None:
    if sys.argv[1] == "-c":
        print(os.environ.get("FAKE_VLLM_VERSION", "0.32.0"))
        return
    start = json.loads(sys.stdin.readline())
    print(json.dumps(start), file=sys.stderr, flush=True)
    if WHAT == "start":
        tell(failed="ValueError: Model architectures ['Foo'] are not supported for now.")
        sys.exit(1)
    if WHAT == "child":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=subprocess.DEVNULL)
        print(f"child {child.pid}", file=sys.stderr, flush=True)
    tell(ready="0.32.0")
    done = 0
    for line in sys.stdin:
        message = json.loads(line)
        if "steer" in message:
            continue
        if WHAT == "kill" and done == int(NUMBER):
            print("the last line", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if WHAT == "memory" and done == int(NUMBER):
            tell(failed="RuntimeError: CUDA out of memory. Tried to allocate 20 GiB")
            sys.exit(1)
        if WHAT == "rows" or (WHAT == "row" and message["row"] == int(NUMBER)):
            tell(row=message["row"], failed="The prompt is odd.")
            continue
        complete(message["row"], message)
        done += 1
    if WHAT == "child":
        time.sleep(600)


main()
