"""The process that runs math-verify for `datamodules.answers`; started as a script, it imports nothing of the project.

Its argument is the time limit in seconds. It says ``ready`` (or what is missing) in one line, then answers each line
of standard input, the JSON list ``[gold, predicted]``, with ``true`` or ``false``. ``[gold, null]`` asks whether gold
can be read as mathematics. Over the time limit it ends itself, from a thread of the interpreter that needs neither
signals nor Python, and so does not depend on what sympy is lost in; nor does it outlive its parent by more than that.
"""

import contextlib
import faulthandler
import json
import logging
import os
import signal
import sys
from dataclasses import replace

MEMORY_LIMIT = 4 * 1024**3
"""Bytes of address space: towers of powers fill the memory of a machine before the time limit ends them."""


def main(time_limit: float) -> None:
    """Answer requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which may want to finish properly
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    nowhere = open(os.devnull, "w")  # noqa: SIM115
    os.dup2(nowhere.fileno(), sys.stdout.fileno())
    try:
        from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
    except ImportError as error:
        print(error, file=replies, flush=True)
        return
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))

    latex = LatexExtractionConfig()
    unitless = LatexExtractionConfig(normalization_config=replace(latex.normalization_config, units=False))

    def read(text: str) -> list:
        """What math-verify makes of it: sympy expressions, and the text itself."""
        found = parse(f"\\boxed{{{text}}}", parsing_timeout=None)
        if any(not isinstance(expression, str) for expression in found):
            return found
        # It takes the last letter of "b + c" for a unit, cuts it off and fails on the rest.
        return parse(f"\\boxed{{{text}}}", [unitless, ExprExtractionConfig()], parsing_timeout=None)

    gold_text, gold = "", []  # pairs come ordered by gold
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        faulthandler.dump_traceback_later(time_limit, exit=True, file=nowhere)
        gold_wanted, predicted = json.loads(line)
        if gold_wanted != gold_text:
            gold_text, gold = gold_wanted, read(gold_wanted)
        if predicted is None:
            verdict = any(not isinstance(expression, str) for expression in gold)
        else:
            verdict = verify(gold, read(predicted), timeout_seconds=None)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(bool(verdict)), file=replies, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
