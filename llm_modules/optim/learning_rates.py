"""Modular learning rates: which parameters learn at which share of the rate (paper; policies and controls)."""

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, final

import torch
from lightning.pytorch.utilities import rank_zero_warn
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

from datamodules.errors import InputError
from llm_modules.optim.module_names import Module, modules_of, parameters_by_module, select
from llm_modules.optim.parameter_groups import group_rows, group_table, kind_of
from llm_modules.optim.robust_modules import RobustModules

Policy = Literal["modular", "freeze", "warmup", "uniform"]
Part = Literal["robust", "rest"]
EMBEDDINGS = "embeddings"


@final  # so that YAML needs no class_path
class LearningRates:
    """Splits a model's parameters into ``robust`` and ``rest`` and says what each part's rate is multiplied by.

    ======== ========================================== =========================
    policy   robust                                     rest
    ======== ========================================== =========================
    modular  1                                          ``ratio`` (paper: 1e-4)
    freeze   1                                          0: no gradient, no state
    warmup   1                                          0, then 1 (SWAT)
    uniform  1                                          1
    ======== ========================================== =========================

    Every module of the project takes one as ``learning_rates``.
    """

    def __init__(
        self,
        result: Path | None = None,
        modules: list[str] | None = None,
        policy: Policy = "modular",
        ratio: float = 1e-4,
        warmup: float = 0.1,
        others: Part = "rest",
        frozen: list[str] | None = None,
        invert: bool = False,
        random_set: int | None = None,
        allow_other_model: bool = False,
    ) -> None:
        """Say which modules are robust, and what that means for their rates.

        Args:
            result: ``robust_modules.yaml`` of a search.
            modules: Instead: patterns of the robust modules, such as ``layers.3-5.*`` or ``layers.*.v``.
            policy: See the table above.
            ratio: What ``modular`` multiplies the rest's rate by (paper: about 1e-4).
            warmup: Share of the steps in which ``warmup`` trains the robust modules only (ours).
            others: Where norms, embeddings and the output head belong (paper: all but the robust modules is the rest).
            frozen: Patterns of modules, or ``embeddings`` (with the head), that are not trained under any policy.
            invert: A control: swap the robust modules and the other modules.
            random_set: A control: seed of a random set of modules with as many weights, in place of the robust ones.
            allow_other_model: Accept a result that was found in another model, such as the base of a tuned one.

        Raises:
            InputError: A number is out of range, or both or neither of ``result`` and ``modules`` is given.
        """
        for key, value in (("ratio", ratio), ("warmup", warmup)):
            if not 0 < value <= 1:
                raise InputError(
                    f"learning_rates.{key}: must be above 0 and at most 1, is {value:g}"
                    + ("; policy 'freeze' does not train the rest at all" if key == "ratio" and value == 0 else "")
                )
        if result is not None and modules is not None:
            raise InputError("learning_rates.result and learning_rates.modules: give one, a file or patterns")
        if result is None and modules is None and policy != "uniform":
            raise InputError(f"learning_rates: policy '{policy}' needs the robust modules: give result or modules")
        self.result = RobustModules.load(result) if result is not None else None
        self.patterns = modules
        self.policy: Policy = policy
        self.ratio, self.warmup = ratio, warmup
        self.others: Part = others
        self.frozen = frozen or []
        self.invert, self.random_set, self.allow_other_model = invert, random_set, allow_other_model

    def check_model(self, model_id: str) -> None:
        """Refuse the result of another model, before any weights are loaded."""
        if self.result is not None:
            self.result.check_model(model_id, self.allow_other_model)

    def robust(self, model: nn.Module, model_id: str) -> frozenset[Module]:
        """The modules that learn at the full rate, controls included.

        Raises:
            InputError: Result or patterns do not fit the model.
        """
        present = modules_of(model)
        if self.result is not None:
            self.result.check(model_id, present, self.allow_other_model)
            chosen = set(self.result.modules())
        else:
            chosen = select(self.patterns or ["layers.*.*"], present, "learning_rates.modules")
        if self.random_set is not None:
            chosen = _random_set(model, chosen, present, self.random_set)
        if not chosen:
            source = self.result.source if self.result else "learning_rates.modules"
            raise InputError(
                f"{source}: it has no robust module, so that nothing would learn; search with a higher tau"
            )
        if self.invert:
            chosen = set(present) - chosen
        return frozenset(chosen)

    def parts(self, model: nn.Module, model_id: str) -> "Parts":
        """The part of every parameter of a model, as it stands: ask anew once its parameters are others (sharding)."""
        return Parts(model, self.robust(model, model_id), self.others)

    def freeze(self, model: nn.Module, model_id: str) -> None:
        """Switch off the gradients of what is never trained, before the optimiser is made.

        Raises:
            InputError: A module is named both as robust and as frozen, or nothing would be trained.
        """
        parts = self.parts(model, model_id)
        frozen = select([p for p in self.frozen if p != EMBEDDINGS], modules_of(model), "learning_rates.frozen")
        if (
            self.patterns is not None
            and not self.invert
            and self.random_set is None
            and (both := frozen & parts.robust)
        ):
            names = ", ".join(module.name for module in sorted(both))
            raise InputError(
                f"learning_rates: {names} stand in two groups, 'modules' and 'frozen'; take them out of one"
            )
        owners = {id(parameter): set(modules) for parameter, modules in parameters_by_module(model)}
        for name, parameter in model.named_parameters():
            table = EMBEDDINGS in self.frozen and kind_of(name, parameter) == EMBEDDINGS
            still = self.policy == "freeze" and parts.of(parameter) == "rest"
            if table or still or owners.get(id(parameter), set()) & frozen:
                parameter.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise InputError("learning_rates: nothing is left to train; check the robust modules and model.peft")

    def lr_mult(self, part: str, step: int, total_steps: int) -> float:
        """What the schedule's rate is multiplied by for a part at an optimiser step, counted from 0."""
        if part != "rest" or self.policy == "uniform":
            return 1.0
        if self.policy == "modular":
            return self.ratio
        if self.policy == "freeze":
            return 0.0
        return 0.0 if step < round(self.warmup * total_steps) else 1.0

    def check_visible(self, optimizer: Optimizer) -> None:
        """Refuse rates that rounding swallows: a step of about the rate must move weights of the type that they have.

        A weight moves when the step is more than half of the distance to its neighbour. The weights of a group are
        taken by their root mean square; steps of Adam, Muon and their kind are about as large as the rate.

        Raises:
            InputError: The rest's reduced rate would leave its weights as they are.
        """
        if isinstance(optimizer, torch.optim.SGD):
            return
        for group in optimizer.param_groups:
            # A warm-up's zeros are meant; what comes after is the full rate.
            rate = group["lr"] * (self.lr_mult(group["part"], 1, 1) if self.policy == "modular" else 1.0)
            lost = [
                name
                for name, parameter in zip(group["parameter_names"], group["params"], strict=True)
                if rate < _rms(parameter) * torch.finfo(parameter.dtype).eps / 4
            ]
            if len(lost) > len(group["params"]) / 2:
                dtype = str(group["params"][0].dtype).removeprefix("torch.")
                what = (
                    f"learning_rates: a rate of {rate:.1e} vanishes in the {dtype} weights of group '{group['name']}' "
                    f"(such as {lost[0]})"
                )
                if dtype == "float32":
                    rank_zero_warn(f"{what}: they stay as they are")
                    continue
                raise InputError(
                    f"{what}; set model.dtype: float32 and trainer.precision: bf16-mixed, or policy: freeze"
                )


class Parts:
    """Which part each parameter of a model is in; a fused projection is robust only if all of its types are."""

    def __init__(self, model: nn.Module, robust: frozenset[Module], others: Part = "rest") -> None:
        self.robust = robust
        self.others = others
        self._of: dict[int, Part] = {
            id(parameter): "robust" if set(modules) <= robust else "rest"
            for parameter, modules in parameters_by_module(model)
            if modules
        }

    def of(self, parameter: Tensor) -> Part:
        """The part of a parameter."""
        return self._of.get(id(parameter), self.others)


def weights_by_module(model: nn.Module) -> dict[Module, int]:
    """Number of weights of each module; those of a fused projection are shared out evenly."""
    sizes: dict[Module, int] = {}
    for parameter, modules in parameters_by_module(model):
        for module in modules:
            sizes[module] = sizes.get(module, 0) + parameter.numel() // len(modules)
    return sizes


def multiplier(rates: LearningRates, total_steps: int) -> Callable[[dict, int], float]:
    """``lr_mult`` of an optimiser's group, as `llm_modules.optim.schedules.Multiplied` takes it."""
    return lambda group, step: rates.lr_mult(group["part"], step, total_steps)


def print_groups(optimizer: Optimizer, rates: LearningRates, total_steps: int, frozen: Sequence[Tensor]) -> None:
    """Print a table of the optimiser's groups, with the factors of their rates, to standard error."""
    groups = optimizer.param_groups
    factors = [tuple(rates.lr_mult(group["part"], step, total_steps) for step in (0, total_steps)) for group in groups]
    table = group_table(group_rows(groups), factors, sum(parameter.numel() for parameter in frozen))
    Console(stderr=True).print(table)


def _random_set(model: nn.Module, like: Iterable[Module], present: list[Module], seed: int) -> set[Module]:
    """Modules in random order until they hold as many weights as ``like``, as nearly as whole modules can."""
    sizes = weights_by_module(model)
    wanted = sum(sizes[module] for module in like)
    order = list(present)
    random.Random(f"{seed}/random set").shuffle(order)
    chosen: set[Module] = set()
    held = 0
    for module in order:
        if abs(held + sizes[module] - wanted) < abs(held - wanted):
            chosen.add(module)
            held += sizes[module]
    return chosen


def _rms(parameter: Tensor) -> float:
    weights = parameter.detach()
    norm = torch.linalg.vector_norm(weights, dtype=torch.float32)
    whole = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return float(whole) / max(1, weights.numel()) ** 0.5
