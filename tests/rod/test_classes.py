"""Classes that a configuration names without their module."""

import subprocess
import sys

import pytest

from rod import classes

LOADED = classes.load()


@pytest.mark.parametrize(("path", "found"), zip(classes.ALL, LOADED, strict=True), ids=str)
def test_each_is_listed_where_it_is_defined(path: str, found: type) -> None:
    assert f"{found.__module__}.{found.__name__}" == path


def test_names_are_unique() -> None:
    assert len({found.__name__ for found in LOADED}) == len(LOADED)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("callbacks.gone.Steer", "callbacks.s3cot.steer.Steer"),
        ("CausalLLM", "llm_modules.causal_lm.CausalLM"),
        ("torch.optim.Adagrad", None),
    ],
)
def test_a_wrong_path_is_understood_by_its_name(wrong: str, meant: str | None) -> None:
    assert classes.guess(wrong) == meant


def test_the_list_loads_nothing_and_judges_load_no_lightning() -> None:
    code = (
        "import sys; from rod import classes;"
        "assert 'torch' not in sys.modules;"
        "classes.load(classes.JUDGES);"
        "assert 'lightning' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
