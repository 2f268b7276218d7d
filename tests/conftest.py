"""Fixtures that every test may use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from datamodules.answers import AnswerChecker

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("WANDB_MODE", "offline")

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT.parent / "shared" / "data"
"""The folder of published data sets, beside the project."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests go first, so that no process is left with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _unseeded() -> Iterator[None]:
    """A test does not inherit the seed that another one gave to ``seed_everything``."""
    os.environ.pop("PL_GLOBAL_SEED", None)
    yield
    os.environ.pop("PL_GLOBAL_SEED", None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of published data sets, whose licences do not allow that the project brings them."""
    if not PUBLISHED.is_dir():
        pytest.skip(f"{PUBLISHED} has no published data sets, which the project may not bring along")
    return PUBLISHED


@pytest.fixture(scope="module")
def checker() -> Iterator[AnswerChecker]:
    """One process; a busy machine does not run out of time."""
    with AnswerChecker(workers=1, time_limit=20) as checker:
        yield checker
