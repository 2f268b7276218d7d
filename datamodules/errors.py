"""The error for wrong input, and what others say of theirs."""


class InputError(ValueError):
    """The user's input is wrong: a file, a line of a file, or a key of the configuration.

    The message says what is wrong, where (``file:line`` or YAML key), and what to do. ``rod`` prints it as one line and
    exits with status 2. Every other exception is a bug and keeps its traceback.
    """


def first_line(error: BaseException) -> str:
    r"""The first line of an error's text, or its kind if it has none.

    >>> first_line(OSError("disk full\nmore")), first_line(EOFError())
    ('disk full', 'EOFError')
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
