"""Records of MoGU's training data."""

from dataclasses import dataclass

from datamodules.records.requests import Request, earlier_turns
from datamodules.records.turns import Turn


@dataclass(frozen=True)
class ResponsePair(Request):
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
    earlier: tuple[Turn, ...] = earlier_turns()

    not_empty = ("prompt", "glad", "reject")
    request_field = "prompt"


@dataclass(frozen=True)
class Attack(Request):
    """A malicious request and the affirmative opening of an answer (in AdvBench ``goal`` and ``target``)."""

    id: str
    prompt: str
    target: str
    system: str | None = None
    earlier: tuple[Turn, ...] = earlier_turns()

    not_empty = ("prompt",)
    request_field = "prompt"
