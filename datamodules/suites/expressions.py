"""Jinja expressions over the fields of a record, by which YAML maps any data set to a suite."""

import json
from collections.abc import Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, UndefinedError
from jinja2.sandbox import SandboxedEnvironment

from datamodules.errors import InputError
from datamodules.records.files import Line


class _Environment(SandboxedEnvironment):
    """A record's field ``items`` or ``get`` is that field, and not the method of a dictionary."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        """``obj.attribute``: the entry of a mapping, if it has one."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


_ENVIRONMENT = _Environment(undefined=StrictUndefined)
_ENVIRONMENT.filters["fromjson"] = json.loads


class Expression:
    """A compiled expression, such as ``problem``, ``Body ~ ' ' ~ Question`` or ``answer.split('####')[-1]``.

    Its variables are the fields of a record. ``record`` is the whole record, for field names that are no identifiers.
    The filter ``fromjson`` parses a field that holds JSON. Error messages start with ``key``.

    Raises:
        InputError: The text is not a valid expression.

    Example:
        >>> expression = Expression("gold", "answer.split('####')[-1].strip()")
        >>> expression(Line(1, {"answer": "6 x 7 = 42 #### 42"}, "test.jsonl:1"))
        '42'
    """

    def __init__(self, key: str, text: str) -> None:
        self.key = key
        try:
            self._compiled = _ENVIRONMENT.compile_expression(text, undefined_to_none=False)
        except TemplateError as error:
            raise InputError(f"{key}: '{text}' is not a valid Jinja expression: {error}") from error

    def __call__(self, line: Line) -> Any:
        """Evaluate the expression on a record. InputError if the record lacks a field, or the evaluation fails."""
        try:
            value = self._compiled({"record": line.values, **line.values})
            _raise_if_undefined(value)
        except UndefinedError as error:
            have = ", ".join(line.values) or "no field"
            raise InputError(f"{line.where}: {self.key}: {error}; the record has {have}") from error
        except Exception as error:
            raise InputError(f"{line.where}: {self.key}: {error}") from error
        return value


def _raise_if_undefined(value: Any) -> None:
    """Use the value, because jinja reports an absent field only then; in a list, each entry has to be used."""
    if isinstance(value, list | tuple):
        for entry in value:
            _raise_if_undefined(entry)
    elif isinstance(value, dict):
        _raise_if_undefined(list(value.values()))
    else:
        str(value)
