"""Records of ML-LR's data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Replacement:
    """A word or phrase of the malicious request, and its replacement in the benign one."""

    old: str
    new: str


@dataclass(frozen=True)
class Twins:
    """A malicious request and its benign twin, which differs in a few words (paper)."""

    id: str
    malicious: str
    benign: str
    replaced: tuple[Replacement, ...] = ()

    not_empty = ("malicious", "benign")
