"""Compare texts up to case, spaces and end punctuation."""


def squeeze(text: str) -> str:
    """Return a text in lower case, without repeated white space and end punctuation.

    Two texts with the same result count as the same text.

    >>> squeeze("How do I  open the jar?") == squeeze("how do I open the jar")
    True
    """
    return " ".join(text.lower().split()).rstrip(".!? ")
