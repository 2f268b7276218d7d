"""Records of MoGU's training data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ResponsePair:
    """A request with two opposite responses.

    With ``glad_is_opening`` the glad response is only the beginning of one ("Sure, here is ..."): it is learnt without
    an end, and nothing harmful has to be written down.
    """

    id: str
    prompt: str
    malicious: bool
    glad: str
    reject: str
    glad_is_opening: bool = False
    system: str | None = None

    not_empty = ("prompt", "glad", "reject")


@dataclass(frozen=True)
class Attack:
    """A malicious request and the affirmative opening of an answer (in AdvBench ``goal`` and ``target``)."""

    id: str
    prompt: str
    target: str
    system: str | None = None

    not_empty = ("prompt",)
