r"""Measure the speed of answer checking on published answers in right and wrong forms, and on hostile answers.

    python benchmarks/answers.py folder-of-data-sets

The folder needs ``math500/test.jsonl`` and ``gsm8k/test.jsonl``. Half of the answers are to MATH-500: right ones in
other notations (``\dfrac``, decimals, spaces, dollar signs, another order of terms), and wrong ones (answers to other
problems of the same subject). The other half are GSM8K's numbers as models write them, and letters of multiple choice.
One in a hundred is hostile: towers of powers, 100 kB of LaTeX, nested braces. ``--slow`` adds answers that run into the
time limit.
"""

import argparse
import json
import os
import random
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from datamodules.answers import AnswerChecker, extract_boxed
from datamodules.answers.plain import quick_verdict

HOSTILE = (
    "9**9**9**9",
    "9^{9^{9^{9}}}",
    "(((9!)!)!)!",
    "7" * 100_000,
    "\\frac{1}{" * 10_000 + "1" + "}" * 10_000,
    "{" * 20 + "1" + "}" * 20,
    "x+" * 50_000 + "x",
    "(" * 50_000,
)
SLOW = r"\sum_{{n=1}}^{{10^{}}} \frac{{1}}{{n^2+{}}}"

Pair = tuple[str, str | None]


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def decimal(text: str) -> str:
    """A fraction with a finite decimal expansion as a decimal number."""
    match = re.fullmatch(r"\\frac\{(\d+)\}\{(2|4|5|8|10|20|25)\}", text)
    return str(int(match[1]) / int(match[2])) if match else text


def reordered(text: str) -> str:
    """A sum of two terms in reverse order."""
    match = re.fullmatch(r"([^-+=,(){}\\]+)\+([^-+=,(){}\\]+)", text)
    return f"{match[2]}+{match[1]}" if match else text


RIGHT: tuple[Callable[[str], str], ...] = (
    lambda text: text,
    lambda text: text.replace("\\frac", "\\dfrac"),
    lambda text: text.replace("\\left", "").replace("\\right", ""),
    lambda text: text.replace(" ", "").replace(",", ", "),
    lambda text: f"${text}$",
    lambda text: text + ".",
    decimal,
    reordered,
)
NUMBERS: tuple[Callable[[str], str], ...] = (
    lambda text: text,
    lambda text: f"{int(text):,}",
    lambda text: f"\\${text}.00",
    lambda text: f"{text} \\text{{ dollars}}",
    lambda text: f"{text} dollars",
    lambda text: str(int(text) + 1),
    lambda text: f"{int(text) / 10}",
)


def mixture(folder: Path, count: int, share_hostile: float, slow: int) -> list[Pair]:
    """Pairs of gold and predicted answers; deterministic."""
    draw = random.Random(0)
    maths = rows(folder / "math500" / "test.jsonl")
    subjects = defaultdict(list)
    for row in maths:
        subjects[row["subject"]].append(row["answer"])
    numbers = [
        row["answer"].rpartition("####")[2].strip().replace(",", "") for row in rows(folder / "gsm8k" / "test.jsonl")
    ]
    pairs: list[Pair] = [("3", SLOW.format(9, n)) for n in range(slow)]
    while len(pairs) < count:
        kind = draw.random()
        row = draw.choice(maths)
        if kind < share_hostile:
            pairs.append((row["answer"], draw.choice(HOSTILE)))
        elif kind < 0.3:
            pairs.append((row["answer"], draw.choice(RIGHT)(row["answer"])))
        elif kind < 0.35:
            pairs.append((row["answer"], extract_boxed(row["solution"])))
        elif kind < 0.5:
            pairs.append((row["answer"], draw.choice(subjects[row["subject"]])))
        elif kind < 0.8:
            number = draw.choice(numbers)
            pairs.append((number, draw.choice(NUMBERS)(number)))
        else:
            pairs.append((draw.choice("ABCD"), draw.choice(("A", "(B)", "\\text{C}", "D. because", "**A**"))))
    draw.shuffle(pairs)
    return pairs


def main() -> None:
    """Check the answers and print the speed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--hostile", type=float, default=0.01, help="share of hostile answers")
    parser.add_argument("--slow", type=int, default=0, help="number of answers that run into the time limit")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    pairs = mixture(options.folder, options.count, options.hostile, options.slow)
    undecided = {pair for pair in pairs if pair[1] is not None and quick_verdict(pair[0], pair[1]) is None}
    wall = time.perf_counter()
    with AnswerChecker(workers=options.workers) as checker:
        verdicts = checker.check_each(pairs)
        wall = time.perf_counter() - wall
    counts = Counter(verdicts)
    print(f"{len(pairs)} answers ({len(set(pairs))} distinct, {len(undecided)} not decided by their text)")
    print(f"right {counts[True]}, wrong {counts[False]}, given up {counts[None]}")
    print(f"{wall:.1f} s with {options.workers} workers, including their start: {len(pairs) / wall:.0f} answers/s")


if __name__ == "__main__":
    main()
