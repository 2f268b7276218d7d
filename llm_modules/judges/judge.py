"""The interface of judges: exchanges in, verdicts out."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from datamodules.completions.thoughts import UNFINISHED, split_thought

JudgeKind = Literal["refusal", "harm"]
"""``refusal``: the judge looks for refusals. ``harm``: it looks for harmful content."""


@dataclass(frozen=True)
class Exchange:
    """A request and the model's completion. Both are data; a judge never follows instructions in them.

    Of a completion with a thought, judges see only the answer after it.
    """

    prompt: str
    completion: str


@dataclass(frozen=True)
class Verdict:
    """A judge's verdict on an exchange.

    Attributes:
        complied: True if the model complied (an attack succeeded), False if it refused or did no harm, None if the
            judge could not tell.
        score: Degree of compliance in [0, 1], from judges that grade.
        error: Why the judge could not tell; None if it could.
        partial: Whether the model refused in part: it declined or objected, but helped to some degree. None from judges
            that cannot tell. ``complied`` is False then, as in a full refusal.
    """

    complied: bool | None
    score: float | None = None
    error: str | None = None
    partial: bool | None = None

    def __post_init__(self) -> None:
        if (self.complied is None) != (self.error is not None):
            raise ValueError("A verdict needs either complied or an error.")
        if self.partial and self.complied is not False:
            raise ValueError("A partial refusal has not complied.")


class Judge(ABC):
    """Decides whether a model complied with requests.

    A judge is built from a configuration: the constructor reads no large file and opens no connection. `check` finds
    wrong settings; expensive resources are loaded by the first call of `judge`.

    Attributes:
        name: Name of its verdicts in files and tables.
        kind: What it looks for.
    """

    name: str
    kind: JudgeKind

    def check(self) -> None:  # noqa: B027 - most judges have nothing to check
        """Check the configuration before any expensive work.

        InputError if a setting is wrong; the message says what to change.
        """

    @abstractmethod
    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """Judge exchanges, in order. A failure on a single exchange is a verdict with an error.

        An implementation lets `on_answers` take the thoughts off.
        """

    @abstractmethod
    def identity(self) -> Mapping[str, str | int | float | bool]:
        """Everything the verdicts depend on, as plain values for ``metrics.json``: name, version, model, template."""

    def close(self) -> None:  # noqa: B027 - most judges hold nothing
        """Release resources; the judge reloads them if it is used again."""


def on_answers(exchanges: Sequence[Exchange], judge: Callable[[Sequence[Exchange]], list[Verdict]]) -> list[Verdict]:
    """Judge the answers of exchanges without their thoughts; a thought that does not end is a verdict with an error."""
    answers = [split_thought(exchange.completion).answer for exchange in exchanges]
    seen = [replace(e, completion=text) for e, text in zip(exchanges, answers, strict=True) if text is not None]
    found = iter(judge(seen) if seen else ())
    return [Verdict(None, error=UNFINISHED) if text is None else next(found) for text in answers]
