"""Start vLLM's server so that the engine ``server`` can steer its rows and choose their random numbers.

    .venv-engine/bin/python llm_modules/generation/vllm_worker/serve.py MODEL --port 8000 --dtype bfloat16

Arguments are those of ``vllm serve``. Steering comes by vLLM's own address for calls of its workers, which has no key
and may call any of their methods. So the server listens to this machine only, unless ``--host`` says otherwise: give it
a network that you trust.
"""

import os
import sys
from pathlib import Path


def command(words: list[str], extension: str, sampling: str) -> list[str]:
    """The words of ``vllm``."""
    host = [] if any(word.partition("=")[0] == "--host" for word in words) else ["--host", "127.0.0.1"]
    steered = ["--worker-extension-cls", extension, "--logits-processors", sampling]
    # Captured graphs ignore hooks, and a pass that is scheduled ahead of a row's end would be counted.
    return ["serve", *words, *host, *steered, "--enforce-eager", "--no-async-scheduling", "--generation-config", "vllm"]


def main() -> None:
    """Serve until the process is ended."""
    from rod_environment import EXTENSION, ON_CPU, RUNNER, SAMPLING

    folder = str(Path(__file__).resolve().parent)  # other processes of vLLM import the extension, too
    path = os.pathsep.join(part for part in (folder, os.environ.get("PYTHONPATH")) if part)
    os.environ.update({**ON_CPU, **RUNNER, **os.environ, "VLLM_SERVER_DEV_MODE": "1", "PYTHONPATH": path})
    sys.argv[1:] = command(sys.argv[1:], EXTENSION, SAMPLING)
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    # The command `vllm` itself does not start from the wheel for CPUs.
    cli_env_setup()
    parser, serve = FlexibleArgumentParser(prog=sys.argv[0]), ServeSubcommand()
    serve.subparser_init(parser.add_subparsers(dest="subparser"))
    words = parser.parse_args()
    serve.validate(words)
    serve.cmd(words)


if __name__ == "__main__":
    main()
