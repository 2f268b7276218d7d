"""Trackio, the local dashboard with the interface of Weights & Biases, as a logger of Lightning, which brings none."""

import contextlib
import importlib
import io
import math
from argparse import Namespace
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import rank_zero_experiment

from datamodules.errors import InputError


class TrackioLogger(Logger):
    """Scalars, figures and tables in Trackio; ``trackio show --project lightning-rod`` opens them in a browser.

    Nothing leaves the machine unless ``TRACKIO_SPACE_ID`` or ``TRACKIO_SERVER_URL`` is set. The run begins with the
    first value; `describe` names it before.

    Args:
        project: Its project there.

    Raises:
        InputError: If Trackio is not installed.
    """

    def __init__(self, project: str = "lightning-rod") -> None:
        super().__init__()
        if find_spec("trackio") is None:
            raise InputError("trainer.logger: Trackio is not installed; pip install 'lightning-rod[trackio]'")
        self._project = project
        self._run: Any = None
        self._name: str | None = None
        self._group: str | None = None
        self._settings: dict[str, Any] = {}
        self._goes_on = False

    def describe(self, name: str, group: str, settings: Mapping[str, Any], goes_on: bool) -> None:
        """Name the run and its group, give its configuration, and say whether it is the earlier run of this name."""
        self._name, self._group, self._settings, self._goes_on = name, group, dict(settings), goes_on

    @property
    def name(self) -> str:
        """The project."""
        return self._project

    @property
    def version(self) -> str | None:
        """The name of the run."""
        return self._name

    @property
    @rank_zero_experiment
    def run(self) -> Any:
        """Trackio's own run, a ``trackio.Run``.

        Lightning asks loggers for their ``experiment`` before callbacks can `describe` the run, so this is none.
        """
        if self._run is None:
            with contextlib.redirect_stdout(io.StringIO()):
                self._run = _trackio().init(
                    self._project,
                    name=self._name,
                    group=self._group,
                    config=self._settings,
                    resume="allow" if self._goes_on else "never",
                    embed=False,
                )
            self._name, self._goes_on = self._run.name, True
        return self._run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars; those that are no finite numbers are left out, which Trackio cannot draw."""
        found = {key: float(value) for key, value in metrics.items() if math.isfinite(value)}
        if found:
            self.run.log(found, step=step)

    @rank_zero_only
    def log_image(self, key: str, images: Sequence[str]) -> None:
        """Log image files."""
        for path in images:
            self.run.log({key: _trackio().Image(path)})

    @rank_zero_only
    def log_table(self, key: str, columns: Sequence[str], data: Sequence[Sequence[Any]]) -> None:
        """Log a table."""
        self.run.log({key: _trackio().Table(columns=list(columns), data=[list(row) for row in data])})

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: `describe` has the whole configuration."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is still under way and end the run; values that come later go on with it."""
        if self._run is not None:
            with contextlib.redirect_stdout(io.StringIO()):
                _trackio().finish()
            self._run = None


def _trackio() -> Any:
    return importlib.import_module("trackio")
