"""A change of a public name or of its parameters is a decision: it changes ``public_api.txt`` too."""

import difflib
import importlib
import inspect

import pytest

from tests.public_api import FILE, public_api, rooms


def test_public_names_and_parameters_are_those_of_the_file() -> None:
    change = "\n".join(
        difflib.unified_diff(FILE.read_text(encoding="utf-8").splitlines(), public_api().splitlines(), lineterm="", n=0)
    )
    assert not change, f"the public API has changed; if it is meant: python -m tests.public_api\n{change}"


@pytest.mark.parametrize("method", ["s3cot", "mllr", "mogu", "crisp"])
def test_every_method_has_a_public_face(method: str) -> None:
    assert f"llm_modules.{method}" in rooms()


@pytest.mark.parametrize("room", rooms())
def test_every_public_thing_says_what_it_is(room: str) -> None:
    module = importlib.import_module(room)
    things = {name: getattr(module, name) for name in module.__all__}
    named = [name for name, thing in things.items() if inspect.isclass(thing) or inspect.isroutine(thing)]
    assert not [name for name in named if not (things[name].__doc__ or "").strip()]
