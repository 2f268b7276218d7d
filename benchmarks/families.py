"""`rod verify`'s checks on every decoder-only family of text that transformers has, as tiny random models.

    python benchmarks/families.py
    python benchmarks/families.py --write docs/models.md
    python benchmarks/families.py qwen3_5_text lfm2

Each family's default configuration is shrunk to a model with one decoder layer of each kind. If the loss of
transformers cannot be differentiated, the shrunk configuration is at fault, and the family is not counted.

Prints the counts and each failure with its reason; ``--write`` puts them between the marks of a page. On two cores it
takes some minutes.
"""

import argparse
import os
import sys
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import transformers
from rich.console import Console
from rich.progress import track
from transformers import PreTrainedModel
from transformers.utils import logging

from datamodules.errors import first_line
from rod.verify.method_checks import METHOD_CHECKS
from rod.verify.model_checks import MODEL_CHECKS
from rod.verify.subject import Result, Subject, attempt
from tests.families import families, tiny_model

CHECKS = (*MODEL_CHECKS, *METHOD_CHECKS)
BEGIN, END = "<!-- families: begin -->\n", "<!-- families: end -->"


def train(model: PreTrainedModel) -> None:
    """The loss of transformers and its gradient."""
    ids = torch.tensor([[5, 12, 19, 26, 33], [7, 9, 11, 13, 15]])
    model.train()(input_ids=ids, labels=ids).loss.backward()
    model.zero_grad()
    model.eval()


def page(found: dict[str, list[Result]], unsound: list[str]) -> str:
    """The results as Markdown."""
    whole = sum(all(result.status != "fails" for result in results) for results in found.values())
    lines = [
        f"With transformers {transformers.__version__}, of {len(found)} families whose tiny configuration is sound, "
        f"{whole} pass every check that applies:",
        "",
        "| check | passes | fails | does not apply |",
        "|---|---|---|---|",
    ]
    for number, check in enumerate(CHECKS):
        states = [results[number].status for results in found.values()]
        counts = " | ".join(str(states.count(status)) for status in ("passes", "fails", "does not apply"))
        lines.append(f"| {(check.__doc__ or '').strip()} | {counts} |")
    lines += ["", "| family | fails | reason |", "|---|---|---|"]
    reasons: dict[tuple[str, str], list[str]] = {}
    for family, results in found.items():
        for result in results:
            if result.status == "fails":
                reasons.setdefault((family, result.found), []).append(result.check)
    lines += [f"| {family} | {', '.join(checks)} | {reason} |" for (family, reason), checks in reasons.items()]
    position = [check.__name__ for check in CHECKS].index("generation")
    batches = [family for family, results in found.items() if "batches" in results[position].found]
    lines += ["", f"Decoded in batches of one prompt length: {', '.join(batches) or 'none'}."]
    lines += ["", f"Without a sound tiny configuration, and not counted: {', '.join(unsound) or 'none'}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Check the families that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*")
    parser.add_argument("--write", type=Path, help="page whose marked part is replaced")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    errors = Console(stderr=True)
    found: dict[str, list[Result]] = {}
    unsound: list[str] = []
    for family in track(options.families or families(), "families", console=errors):
        try:
            model = tiny_model(family)
            train(model)
        except Exception as error:
            unsound.append(family)
            errors.print(
                f"no sound tiny configuration: {family}: {type(error).__name__}: {first_line(error)}",
                highlight=False,
                markup=False,
            )
            continue
        found[family] = [attempt(check, Subject(model)) for check in CHECKS]
    text = page(found, unsound)
    print(text)
    if options.write is not None:
        before, _, rest = options.write.read_text().partition(BEGIN)
        options.write.write_text(before + BEGIN + text + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
