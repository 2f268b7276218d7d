"""The one error that means "the input is wrong", as opposed to "the program is wrong"."""


class InputError(ValueError):
    """Something the user gave is wrong: a file, a line of it, a key of the configuration.

    The message is for the user: what was wrong, where (``file:line`` or YAML key), and what to do about it.
    ``rod`` prints it as one line and exits with status 2; every other exception is a bug and keeps its traceback.
    """
