"""The ``rod`` command."""
