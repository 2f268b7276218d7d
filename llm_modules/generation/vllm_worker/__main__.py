"""Read requests as JSON lines, let vLLM complete them, write each completion as a JSON line when it ends.

Started as ``python FOLDER`` by `VllmProcess`, whose docstring has the messages. It ends when its input ends.
"""

import json
import os
import queue
import sys
import threading
import time
from typing import Any

from rod_environment import RUNNER

# One process that dies with its parent.
for name, value in {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", **RUNNER}.items():
    os.environ.setdefault(name, value)

PROGRESS_SECONDS = 0.2
Lines = queue.Queue[dict[str, Any]]


class Worker:
    """An engine of vLLM and the requests that it completes."""

    def __init__(self, options: dict[str, Any], adapter: str | None, out: Any) -> None:
        import vllm
        from vllm import EngineArgs
        from vllm.lora.request import LoRARequest
        from vllm.v1.engine.llm_engine import LLMEngine

        self.out, self.ids = out, dict[int, list[int]]()
        self.steering: str | None = None
        self.tokens, self.told = 0, time.monotonic()
        self.lora = LoRARequest("adapter", 1, adapter) if adapter else None
        self.engine = LLMEngine.from_engine_args(EngineArgs(**options))
        self.tell(ready=vllm.__version__)

    def tell(self, **message: Any) -> None:
        """Write a message."""
        self.out.write(json.dumps(message) + "\n")

    def take(self, message: dict[str, Any]) -> None:
        """Begin a request, or steer those that follow."""
        if "steer" in message:
            self._steer(message["steer"])
        else:
            self._add(message)

    def step(self) -> None:
        """Let the engine compute a pass; tell of rows that are complete."""
        done = []
        for output in self.engine.step():
            row = int(output.request_id)
            new = output.outputs[0].token_ids if output.outputs else ()
            self.tokens += len(new)
            self.ids[row].extend(new)
            if output.finished:
                reason = str(output.outputs[0].finish_reason) if output.outputs else "none"
                done.append((row, reason, output.num_cached_tokens or 0))
        if self.tokens and (done or time.monotonic() - self.told > PROGRESS_SECONDS):
            self.tell(tokens=self.tokens)
            self.tokens, self.told = 0, time.monotonic()
        steered = self._steered([row for row, _, _ in done])
        for row, reason, reused in done:
            ids = self.ids.pop(row)
            if reason in ("stop", "length") and ids:
                self.tell(row=row, ids=ids, steered=steered.get(row), reused=reused)
            else:
                self.tell(row=row, failed=f"vLLM ended it: {reason}")

    def _add(self, message: dict[str, Any]) -> None:
        from rod_steering import cache_salt
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        row, ids, strengths = message["row"], message["prompt"], message["strengths"]
        prompt: dict[str, Any] = {"prompt_token_ids": ids}
        if strengths:
            prompt["cache_salt"] = cache_salt(self.steering, self.positions, strengths, len(ids))
        try:
            params = SamplingParams(
                **message["sampling"],
                ignore_eos=True,  # the ends are in stop_token_ids
                detokenize=False,
                output_kind=RequestOutputKind.DELTA,
                extra_args={
                    "row": row,
                    "steering": self.steering,
                    "strengths": strengths,
                    "draws": message["draws"],
                },
            )
            self.engine.add_request(str(row), prompt, params, lora_request=self.lora)
        except ValueError as error:
            self.tell(row=row, failed=str(error))
            return
        self.ids[row] = []

    def _steer(self, message: dict[str, Any] | None) -> None:
        self.steering = None
        if message is not None:
            self.positions = message["positions"]
            self.steering = self.engine.collective_rpc("rod_steer", kwargs=message)[0]

    def _steered(self, rows: list[int]) -> dict[int, tuple[int, float] | None]:
        """Of complete rows: places, and the mean relative size there; None for those without strengths."""
        if self.steering is None or not rows:
            return {}
        from rod_steering import summed

        found = summed(self.engine.collective_rpc("rod_steered", args=(self.steering, rows)))
        return dict(zip(rows, found, strict=True))


def read(lines: Lines) -> None:
    """Put messages into the queue; end the process when the input ends or makes no sense, whatever it is doing."""
    try:
        for line in sys.stdin:
            lines.put(json.loads(line))
    except ValueError as error:
        print(f"a message that is no JSON: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(0)


def main() -> None:
    """Serve until the input ends."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print belongs to the log
    lines: Lines = queue.Queue()
    threading.Thread(target=read, args=(lines,), daemon=True).start()
    try:
        start = lines.get()
        worker = Worker(start["options"], start["adapter"], out)
        while True:
            while not worker.engine.has_unfinished_requests() or not lines.empty():
                worker.take(lines.get())
            worker.step()
    except Exception as error:
        import traceback

        traceback.print_exc()
        out.write(json.dumps({"failed": f"{type(error).__name__}: {error}"}) + "\n")
        out.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
