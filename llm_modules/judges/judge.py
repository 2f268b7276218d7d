"""What every judge takes and gives: exchanges in, verdicts out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

JudgeKind = Literal["refusal", "harm"]
"""What a judge looks for: ``refusal``, whether the model declined; ``harm``, whether it did what it should not have."""


@dataclass(frozen=True)
class Exchange:
    """A request and what the model answered. Both are data: nothing in them is an instruction to a judge."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Verdict:
    """What a judge says of an exchange.

    Attributes:
        complied: True if the model went along (an attack succeeded), False if it refused or did no harm, None if the
            judge could not tell.
        score: How far it went along, in [0, 1], from judges that grade.
        error: Why the judge could not tell; None where it could.
    """

    complied: bool | None
    score: float | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        if (self.complied is None) != (self.error is not None):
            raise ValueError("A verdict has either an answer or an error.")


class Judge(ABC):
    """Decides whether a model went along with what it was asked.

    A judge is made from a configuration: its constructor neither reads large files nor reaches for a network. Wrong
    input is found by `check`; what is expensive starts with the first `judge`.

    Attributes:
        name: What its verdicts are called in files and tables.
        kind: What it looks for.
    """

    name: str
    kind: JudgeKind

    def check(self) -> None:  # noqa: B027 - most judges have nothing to check
        """Find what is wrong with the configuration, before any expensive work.

        Raises:
            InputError: Something is; the message says what to change.
        """

    @abstractmethod
    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """One verdict an exchange, in order. What fails for one exchange alone is a verdict with an error."""

    @abstractmethod
    def identity(self) -> Mapping[str, str | int | float | bool]:
        """What the verdicts depend on, as plain values for a file of metrics: name, version, model, template."""

    def close(self) -> None:  # noqa: B027 - most judges hold nothing
        """Give back what was started; the judge starts again when it is used again."""
