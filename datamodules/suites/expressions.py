"""Jinja expressions over the fields of a record: how YAML says what is what in a data set of anybody's."""

import json
from typing import Any

from jinja2 import StrictUndefined, TemplateError, UndefinedError
from jinja2.sandbox import SandboxedEnvironment

from datamodules.errors import InputError
from datamodules.suites.sources import Line

_ENVIRONMENT = SandboxedEnvironment(undefined=StrictUndefined)
_ENVIRONMENT.filters["fromjson"] = json.loads


class Expression:
    """One expression, such as ``problem``, ``Body ~ ' ' ~ Question`` or ``answer.split('####')[-1]``.

    The fields of a record are its variables; ``record`` is the whole of it, for fields whose names are no variables.
    The filter ``fromjson`` reads a field that holds JSON.
    """

    def __init__(self, key: str, text: str) -> None:
        """Compile.

        Args:
            key: What the expression is called in errors.
            text: The expression.

        Raises:
            InputError: It is none.
        """
        self.key = key
        try:
            self._compiled = _ENVIRONMENT.compile_expression(text, undefined_to_none=False)
        except TemplateError as error:
            raise InputError(f"{key}: '{text}' is no expression: {error}") from error

    def __call__(self, line: Line) -> Any:
        """The value for a record.

        Raises:
            InputError: The record lacks a field of it, or it fails.
        """
        try:
            value = self._compiled({"record": line.values, **line.values})
            _touch(value)
        except UndefinedError as error:
            have = ", ".join(line.values)
            raise InputError(f"{line.where}: {self.key}: {error}; the record has {have}") from error
        except Exception as error:
            raise InputError(f"{line.where}: {self.key}: {error}") from error
        return value


def _touch(value: Any) -> None:
    """An absent field shows when it is used, and in a list, whose text hides it, only when its entries are."""
    if isinstance(value, list | tuple):
        for entry in value:
            _touch(entry)
    elif isinstance(value, dict):
        _touch(list(value.values()))
    else:
        str(value)
