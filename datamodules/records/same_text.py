"""Compare texts up to case, spaces and end punctuation, and group those that are linked."""

from collections.abc import Iterable


def squeeze(text: str) -> str:
    """Return a text in lower case, without repeated white space and end punctuation.

    Two texts with the same result count as the same text.

    >>> squeeze("How do I  open the jar?") == squeeze("how do I open the jar")
    True
    """
    return " ".join(text.lower().split()).rstrip(".!? ")


def linked(count: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """Return the group of each of ``count`` items, joined by links directly or through other items.

    >>> linked(4, [(0, 2), (2, 3)])
    [3, 1, 3, 3]
    """
    parent = list(range(count))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    for one, other in links:
        parent[root(one)] = root(other)
    return [root(index) for index in range(count)]
