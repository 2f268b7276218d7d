"""The interface of judges: exchanges in, verdicts out."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

JudgeKind = Literal["refusal", "harm"]
"""``refusal``: the judge looks for refusals. ``harm``: it looks for harmful content."""


@dataclass(frozen=True)
class Exchange:
    """A request and the model's answer. Both are data; a judge never follows instructions in them."""

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
    """

    complied: bool | None
    score: float | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        if (self.complied is None) != (self.error is not None):
            raise ValueError("A verdict needs either complied or an error.")


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

        Raises:
            InputError: A setting is wrong; the message says what to change.
        """

    @abstractmethod
    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """Judge exchanges, in order. A failure on a single exchange is a verdict with an error."""

    @abstractmethod
    def identity(self) -> Mapping[str, str | int | float | bool]:
        """Everything the verdicts depend on, as plain values for ``metrics.json``: name, version, model, template."""

    def close(self) -> None:  # noqa: B027 - most judges hold nothing
        """Release resources; the judge reloads them if it is used again."""
