"""Texts that are the same but for case and spaces."""


def squeeze(text: str) -> str:
    """A text without case, end punctuation and spare white space: what makes two texts the same."""
    return " ".join(text.lower().split()).rstrip(".!? ")
