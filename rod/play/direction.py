"""The direction to steer along, the places where it is added, and what a calibration measured of its strengths."""

import csv
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from datamodules.errors import InputError
from datamodules.padding import pad_prompts
from datamodules.prompts import encode_prompt, render_prompt, user_turn
from datamodules.world.files import questions
from llm_modules.backbone.architecture import hidden_size, num_layers
from llm_modules.backbone.states import capture_last_token
from llm_modules.causal_lm import CausalLM
from llm_modules.mogu.module import MoGU
from llm_modules.s3cot import Direction, DirectionAccumulator, Positions, read_direction, select_layers
from rod.run_record import CONFIG

STRONGEST = -3.0
"""Left end of the slider without a calibration."""


@dataclass(frozen=True)
class Measured:
    """A line of a calibration: mean length over that without steering, and share of right answers."""

    layer_set: str
    alpha: float
    length_ratio: float
    accuracy: float


@dataclass
class Steer:
    """A direction and where it is added.

    Attributes:
        layers: Layer set, such as ``anchor:5`` or ``2-3``.
        alpha: Strength to begin with.
        measured: Lines of the calibration, if there is one.
    """

    direction: Direction
    name: str
    layers: str
    positions: Positions
    alpha: float = -0.5
    measured: tuple[Measured, ...] = ()

    @property
    def curve(self) -> list[Measured]:
        """What was measured on these layers, from the strongest strength to 0."""
        chosen = select_layers(self.layers, self.direction)
        alike = [one for one in self.measured if not one.layer_set or self._same(one.layer_set, chosen)]
        return sorted(alike, key=lambda one: one.alpha)

    @property
    def strongest(self) -> float:
        """The left end of the slider."""
        return min([self.alpha, *(one.alpha for one in self.curve)]) if self.curve else min(STRONGEST, self.alpha)

    @property
    def weakest(self) -> float:
        """The right end of the slider: that of the curve; without one there are positive strengths, which lengthen."""
        return max(one.alpha for one in self.curve) if self.curve else 1.0

    def _same(self, layer_set: str, chosen: tuple[int, ...]) -> bool:
        return select_layers(layer_set, self.direction) == chosen

    def check(self, module: CausalLM) -> None:
        """Raise InputError if the direction does not fit a model, or the layers are none of its layers."""
        model = module.language_model
        self.direction.check(
            model_id=module.model_id, layers=num_layers(model), hidden=hidden_size(model), allow_other_model=True
        )
        select_layers(self.layers, self.direction)


def chosen(
    module: CausalLM, direction: Path | None, calibration: Path | None, layers: str | None, positions: Positions | None
) -> Steer | None:
    """What a model is steered along: a file, a calibration, for the miniature its own direction, or nothing.

    InputError if something is given that does not fit, or the model is a MoGU, which is not steered.
    """
    if isinstance(module, MoGU):
        if given := [name for name, value in (("direction", direction), ("calibration", calibration)) if value]:
            raise InputError(f"--{given[0]}: a MoGU is not steered; give its base model")
        return None
    if calibration is not None:
        steer = from_calibration(calibration, module, direction)
    elif direction is not None:
        steer = from_file(direction, module)
    elif module.model_id == "miniature":
        steer = of_the_miniature(module)
    else:
        return None
    steer.layers, steer.positions = layers or steer.layers, positions or steer.positions
    steer.check(module)
    return steer


def from_file(path: Path, module: CausalLM, layers: str | None = None, positions: Positions | None = None) -> Steer:
    """Read a direction for a model; InputError if the file is none, or does not fit."""
    if not path.is_file():
        raise InputError(f"--direction: there is no file '{path}'")
    direction = read_direction(path, num_layers(module.language_model))
    default = "anchor:5" if direction.anchor is not None else "all"
    steer = Steer(direction, path.name, layers or default, positions or "all", alpha=-0.2)
    steer.check(module)
    return steer


def from_calibration(folder: Path, module: CausalLM, direction: Path | None = None) -> Steer:
    """Read what ``rod predict --config s3cot/2_calibrate`` wrote: direction, places, strengths and the choice.

    InputError if the folder is no such run, or the direction that it names is missing and none is given.
    """
    missing = [name for name in (CONFIG, "strength_sweep.csv", "calibration.yaml") if not (folder / name).is_file()]
    if missing:
        raise InputError(f"--calibration: '{folder}' has no {missing[0]}; give the run folder of s3cot/2_calibrate")
    config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))["steer"]
    config = config.get("init_args", config)
    chosen = yaml.safe_load((folder / "calibration.yaml").read_text(encoding="utf-8"))
    path = direction or Path(config["direction"])
    if not path.is_file():
        raise InputError(f"--calibration: its direction '{path}' is not there; say where it is with --direction")
    steer = from_file(path, module, chosen["layer_set"] or config["layers"], config["positions"])
    steer.alpha = float(chosen["alpha"] or steer.alpha)
    with (folder / "strength_sweep.csv").open(newline="", encoding="utf-8") as file:
        steer.measured = tuple(
            Measured(line["layer_set"], float(line["alpha"]), float(line["length_ratio"]), float(line["accuracy"]))
            for line in csv.DictReader(file)
        )
    return steer


@torch.no_grad()
def of_the_miniature(module: CausalLM) -> Steer:
    """The direction of the embedded model, from 40 questions of its world; ``s3cot/1_direction`` takes 100."""
    model, tokenizer = module.language_model, module.tokenizer
    with DirectionAccumulator(num_layers(model), hidden_size(model)) as accumulator:
        asked = [one.question for one in questions("train", 40)]
        for first in range(0, len(asked), 20):
            states = []
            for system in ("system2", "system1"):
                turns = [user_turn(question, system) for question in asked[first : first + 20]]
                rows = [encode_prompt(tokenizer, render_prompt(tokenizer, turn)) for turn in turns]
                ids, mask = pad_prompts(rows, module.pad_id, side="left")
                states.append(capture_last_token(model, ids.to(model.device), mask.to(model.device)))
            accumulator.update(*states)
        direction = accumulator.finish(model="miniature")
    return Steer(direction, "from 40 questions of its world", "2-3", "last", alpha=-2.0)
