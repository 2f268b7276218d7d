"""Records that MoGU learns from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ResponsePair:
    """A request, what a glad model would say to it and what an unwilling one would.

    ``glad_is_opening``: the glad response is the beginning of one ("Sure, here is ..."), so that its end is nothing to
    learn and nothing harmful has to be written down.
    """

    id: str
    prompt: str
    malicious: bool
    glad: str
    reject: str
    glad_is_opening: bool = False
    system: str | None = None


@dataclass(frozen=True)
class Attack:
    """A malicious request and the affirmative opening of an answer (AdvBench: ``goal`` and ``target``)."""

    id: str
    prompt: str
    target: str
    system: str | None = None
