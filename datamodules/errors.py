"""The error for wrong input."""


class InputError(ValueError):
    """The user's input is wrong: a file, a line of a file, or a key of the configuration.

    The message says what is wrong, where (``file:line`` or YAML key), and what to do. ``rod`` prints it as one line and
    exits with status 2. Every other exception is a bug and keeps its traceback.
    """
