"""The results of an evaluation as a table for the terminal, and hints about what looks wrong in them."""

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console

from callbacks.columns import print_columns, printable, terminal
from callbacks.evaluation.report import Result
from datamodules.completions.english import is_english
from datamodules.suites.predictions import Prediction

HEADINGS = (
    "suite", "n", "right %", "95 %", "tokens", "cut %", "loop %", "no answer %", "unchecked %", "box, any %", "AES",
    "refused %", "complied %", "attacks %",
)  # fmt: skip
_ANSWERLESS = 0.1
"""Share of completions without an answer above which a hint is printed (ours)."""
_SHOWN = 3
"""Completions that a hint quotes."""
_END = 80
"""Characters of a completion's end that a hint quotes."""


def print_table(
    results: Sequence[Result], title: str, console: Console | None = None, hints: Iterable[str] = ()
) -> None:
    """Print the results as a table with the verdicts of the first judge, then what could not be measured and hints.

    A rate over fewer completions than ``n`` says over how many: ``50.0 of 2``.
    """
    console = console or terminal()
    headings, rows = result_columns(results)
    print_columns(console, headings, rows, title=title)
    for line in judge_notes(results):
        console.print(printable(line), highlight=False, markup=False)
    for result in results:
        if result.kind == "perplexity":
            value = _number(result.value("perplexity"), 1, digits=3)
            console.print(printable(f"{result.cell}: perplexity {value}"), highlight=False, markup=False)
    warnings = [
        f"{r.cell}: {count} of {r.n} not measured: {name}" for r in results for name, count in r.failures.items()
    ]
    for text in (*warnings, *hints):
        console.print(printable(text), style="yellow", highlight=False, markup=False, soft_wrap=True)


def result_columns(results: Sequence[Result]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the results; columns that say nothing are left out."""
    rows = [_cells(result) for result in results]
    shown = [i for i, heading in enumerate(HEADINGS) if i < 2 or any(_told(row[i], heading) for row in rows)]
    return [HEADINGS[i] for i in shown], [[row[i] for i in shown] for row in rows]


def answer_hints(predictions: Sequence[Prediction]) -> list[str]:
    """Hints for suites in which more than 10 % of the completions with a gold answer have no answer.

    And a hint for each suite with judged answers that are not in English, which judges of refusals cannot read.
    """
    suites: dict[str, list[Prediction]] = {}
    for p in predictions:
        if p.gold is not None and p.rule.type != "facts":
            suites.setdefault(p.suite, []).append(p)
    found = [hint for suite, known in suites.items() if (hint := _answer_hint(suite, known))]
    return found + _language_hints(predictions)


def _language_hints(predictions: Sequence[Prediction]) -> list[str]:
    judged = [p for p in predictions if any(verdict.kind == "refusal" for verdict in p.verdicts)]
    foreign = Counter(p.suite for p in judged if not is_english(p.parts.answer or ""))
    n = Counter(p.suite for p in judged)
    return [
        f"{suite}: {count:,} of {n[suite]:,} judged answers are not in English. The refusal classifier and the phrase "
        "rule read English only and take most other texts for compliance; use a judge model"
        for suite, count in foreign.items()
    ]


def _answer_hint(suite: str, known: Sequence[Prediction]) -> str:
    without = [p for p in known if p.answer is None]
    if len(without) <= _ANSWERLESS * len(known):
        return ""
    cut = sum(p.finish_reason == "length" for p in without)
    causes = f", {cut:,} of them cut off by the token budget" if cut else ""
    # Whole completions first: those that are cut may well have no answer.
    examples = sorted(without, key=lambda p: p.finish_reason == "length")[:_SHOWN]
    lines = [
        f"{suite}: no answer found in {len(without):,} of {len(known):,} completions "
        f"({len(without) / len(known):.1%}){causes}; they count as wrong. How some of them end:",
        *(f"  {p.id}: {_end(p.completion)}" for p in examples),
        "  If the answers are there, say where they stand and how they are read: --answer.extractors, --answer.pattern "
        "or --answer.type of rod score; in a suite, its `answer`.",
    ]
    return "\n".join(lines)


def _end(text: str) -> str:
    """The end of a completion, as a quoted line."""
    text = text.strip()
    end = text if len(text) <= _END else "..." + text[-_END:]
    return repr(end)


def judge_notes(results: Sequence[Result]) -> list[str]:
    """A line about whose verdicts the table has; none without judges."""
    names = [_judges(result) for result in results]
    first = dict.fromkeys(judges[0] for judges in names if judges)
    others = [name for name in dict.fromkeys(name for judges in names for name in judges[1:]) if name not in first]
    if not first:
        return []
    more = f"; those of {', '.join(others)} are in metrics.json" if others else ""
    return [f"verdicts: judge {', '.join(first)}{more}"]


def _judges(result: Result) -> list[str]:
    prefixes = ("asr", "compliance")
    return list(dict.fromkeys(name.partition("/")[2] for name in result.metrics if name.split("/")[0] in prefixes))


def _told(cell: str, heading: str) -> bool:
    """Whether a cell says anything; unchecked answers are rare and have a column only if there are some."""
    return cell != "-" and not (heading == "unchecked %" and cell.split()[0] == "0.0")


def _cells(result: Result) -> list[str]:
    judge = next(iter(_judges(result)), None)

    def first(prefix: str) -> dict[str, float | None]:
        names = (prefix, f"{prefix}/{judge}")
        return next((numbers for name, numbers in result.metrics.items() if name in names), {})

    def rate(prefix: str) -> str:
        return _with_spread(first(prefix), 100, result.n)

    accuracy = first("accuracy")
    low, high = accuracy.get("low"), accuracy.get("high")
    interval = "-" if low is None or high is None else f"{100 * low:.1f}-{100 * high:.1f}"
    return [
        str(result.cell),
        f"{result.n:,}",
        rate("accuracy"),
        interval,
        _with_spread(first("tokens"), 1, result.n),
        rate("truncation"),
        rate("repetition"),
        rate("no_answer"),
        rate("unchecked"),
        _both(result, "accuracy_box", "accuracy_any"),
        _number(first("aes").get("value"), 1, digits=3),
        rate("refusal_rate"),
        rate("compliance"),
        rate("asr"),
    ]


def _both(result: Result, first: str, second: str) -> str:
    """Two rates side by side."""
    values = [_number(result.value(name), 100) for name in (first, second)]
    return "-" if values == ["-", "-"] else ", ".join(values)


def _number(value: float | None, factor: float, digits: int = 1) -> str:
    return "-" if value is None else f"{factor * value:.{digits}f}"


def _with_spread(numbers: dict[str, float | None], factor: float, n: int) -> str:
    """The value, its spread over samples, and over how many completions it is if those are not all ``n``."""
    value, spread, count = numbers.get("value"), numbers.get("std"), numbers.get("n")
    if value is None:
        return "-"
    digits = 0 if factor * value >= 1000 else 1
    text = _number(value, factor, digits) + ("" if spread is None else f" ± {factor * spread:.{digits}f}")
    return text if count is None or count == n else f"{text} of {int(count):,}"
