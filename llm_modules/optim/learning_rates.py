"""Modular learning rates (ML-LR): the policies of the paper and its controls."""

import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, final, get_args

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

from datamodules.errors import InputError
from llm_modules.optim.module_names import Module, modules_of, parameters_by_module, select
from llm_modules.optim.parameter_groups import group_rows, group_table, kind_of
from llm_modules.optim.robust_modules import RobustModules
from llm_modules.optim.schedules import Multiplied, ScheduleCallable

Policy = Literal["modular", "freeze", "warmup", "uniform"]
Part = Literal["robust", "rest"]
EMBEDDINGS = "embeddings"


@final  # YAML then needs no class_path
class LearningRates:
    """Splits a model's parameters into the parts ``robust`` and ``rest`` and multiplies the rate of each.

    | policy | robust | rest |
    |---|---|---|
    | modular | 1 | ``ratio`` (paper: 1e-4) |
    | freeze | 1 | 0: no gradient, no optimiser state |
    | warmup | 1 | 0 at first, then 1 (SWAT) |
    | uniform | 1 | 1 |

    Every method takes it as ``model.learning_rates``.

    >>> rates = LearningRates(modules=["layers.3-5.*", "layers.*.v"], policy="modular", ratio=1e-4)
    >>> rates.lr_mult("robust", step=0, total_steps=100), rates.lr_mult("rest", step=0, total_steps=100)
    (1.0, 0.0001)
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
        """Name the robust modules and the policy.

        Args:
            result: ``robust_modules.yaml`` of a search. With ``uniform`` it need not be there: it only names groups.
            modules: Patterns of the robust modules, such as ``layers.3-5.*`` or ``layers.*.v``, in place of ``result``.
            policy: Rate of the rest: ``ratio`` times the rate (``modular``, paper), 0 (``freeze``), 0 at first and then
                the full rate (``warmup``), or the full rate (``uniform``).
            ratio: Factor of the rest's rate under ``modular`` (paper: about 1e-4).
            warmup: Share of the steps in which ``warmup`` trains the robust modules only (ours).
            others: Part of norms, embeddings and output head (paper: the rest is all but the robust modules).
            frozen: Patterns of modules that no policy trains; ``embeddings`` stands for embeddings and head.
            invert: A control: the modules that are not robust learn at the full rate.
            random_set: A control: seed of a random set of modules, of as many weights, in place of the robust ones.
            allow_other_model: Accept a result from another model, such as the base of a tuned one.

        Raises:
            InputError: A number is out of range, or both or neither of ``result`` and ``modules`` are given.
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
        named = result is not None and (
            policy != "uniform" or invert or random_set is not None or Path(result).is_file()
        )
        self.result = RobustModules.load(result) if result is not None and named else None
        self.patterns = modules
        self.policy: Policy = policy
        self.ratio, self.warmup = ratio, warmup
        self.others: Part = others
        self.frozen = frozen or []
        self.invert, self.random_set, self.allow_other_model = invert, random_set, allow_other_model

    def check_model(self, model_id: str) -> None:
        """Raise ``InputError`` if the result is of another model; needs no weights."""
        if self.result is not None:
            self.result.check_model(model_id, self.allow_other_model)

    def robust(self, model: nn.Module, model_id: str) -> frozenset[Module]:
        """The modules that learn at the full rate; raises ``InputError`` if result or patterns do not fit the model."""
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
            raise InputError(f"{source}: it has no robust module, so nothing would learn; search with a higher tau")
        if self.invert:
            chosen = set(present) - chosen
        return frozenset(chosen)

    def parts(self, model: nn.Module, model_id: str) -> "Parts":
        """The part of every parameter; to be computed anew after sharding, which replaces the parameters."""
        return Parts(model, self.robust(model, model_id), self.others)

    def freeze(self, model: nn.Module, model_id: str, part_of: Callable[[nn.Parameter], str] | None = None) -> None:
        """Switch off the gradients of parameters that are never trained.

        ``part_of`` gives the part of a parameter if a method has parts of its own; any policy trains those. InputError
        if a module is both robust and frozen, or nothing would be trained.
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
            part = part_of(parameter) if part_of is not None else parts.of(parameter)
            table = EMBEDDINGS in self.frozen and kind_of(name, parameter) == EMBEDDINGS
            named = part in get_args(Part) and owners.get(id(parameter), set()) & frozen
            if table or named or (self.policy == "freeze" and part == "rest"):
                parameter.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise InputError("learning_rates: nothing is left to train; check the robust modules and model.peft")

    def lr_mult(self, part: str, step: int, total_steps: int) -> float:
        """Factor of the schedule's rate for a part at an optimiser step, counted from 0."""
        if part != "rest" or self.policy == "uniform":
            return 1.0
        if self.policy == "modular":
            return self.ratio
        if self.policy == "freeze":
            return 0.0
        return 0.0 if step < round(self.warmup * total_steps) else 1.0

    def schedule(self, make: ScheduleCallable, optimizer: Optimizer, total_steps: int) -> Multiplied:
        """The schedule that ``make`` gives, multiplied by the factor of each part; errors as in `check_visible`."""
        self.check_visible(optimizer)
        return Multiplied(
            make(optimizer, total_steps), lambda group, step: self.lr_mult(group["part"], step, total_steps)
        )

    def check_visible(self, optimizer: Optimizer) -> None:
        """Raise if the reduced rate is too small to change weights in their dtype (1e-8 in bfloat16).

        A weight changes if the step is more than half of the distance to the next number of its dtype. Weights are
        represented by their root mean square, steps of Adam, Muon and the like by the rate. InputError if the rate
        would leave weights below float32 unchanged; for float32 it is a warning.
        """
        if isinstance(optimizer, torch.optim.SGD):
            return
        for group in optimizer.param_groups:
            # The zeros of a warm-up are intended; the full rate follows.
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
                    from lightning.pytorch.utilities import rank_zero_warn  # here, as importing it takes a second

                    rank_zero_warn(f"{what}: they stay as they are")
                    continue
                raise InputError(
                    f"{what}; set model.dtype: float32 and trainer.precision: bf16-mixed, or policy: freeze"
                )


class Parts:
    """Part of each parameter of a model; a fused projection is robust only if all of its types are."""

    def __init__(self, model: nn.Module, robust: frozenset[Module], others: Part = "rest") -> None:
        self.robust = robust
        self.others = others
        self._of: dict[int, Part] = {
            id(parameter): "robust" if set(modules) <= robust else "rest"
            for parameter, modules in parameters_by_module(model)
            if modules
        }

    def of(self, parameter: Tensor) -> Part:
        """Part of a parameter."""
        return self._of.get(id(parameter), self.others)


def weights_by_module(model: nn.Module) -> dict[Module, int]:
    """Number of weights of each module; the types of a fused projection share its weights evenly."""
    sizes: dict[Module, int] = {}
    for parameter, modules in parameters_by_module(model):
        for module in modules:
            sizes[module] = sizes.get(module, 0) + parameter.numel() // len(modules)
    return sizes


def print_groups(optimizer: Optimizer, rates: LearningRates, total_steps: int, frozen: Sequence[Tensor]) -> None:
    """Print a table of the optimiser's groups, with the factors of their rates, to standard error."""
    groups = optimizer.param_groups
    factors = [tuple(rates.lr_mult(group["part"], step, total_steps) for step in (0, total_steps)) for group in groups]
    table = group_table(group_rows(groups), factors, sum(parameter.numel() for parameter in frozen))
    Console(stderr=True).print(table)


def _random_set(model: nn.Module, like: Iterable[Module], present: list[Module], seed: int) -> set[Module]:
    """Random modules that have about as many weights as ``like``."""
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
