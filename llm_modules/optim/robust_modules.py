"""``robust_modules.yaml``: what the search found, how, and in which model."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from datamodules.errors import InputError
from llm_modules.optim.module_names import Module


@dataclass(frozen=True)
class RobustModules:
    """The result of the search (spec: Mods_Robust) with everything that it depends on.

    Attributes:
        model: Hub id or folder of the model, as ``CausalLM.model_id`` has it.
        revision: Commit of a hub id.
        layers: Its number of decoder layers.
        types: The types of modules that it has.
        fused: Groups of types that share a weight; such a weight counts as robust when all of its types are.
        robust: Canonical names of the robust modules.
        tau: The drop that the search allowed.
        seeds: Of the perturbations that it was guided by.
        settings: Perturbation, measure, data and the like.
        probe: Scores of the classifier on held-out pairs, unperturbed.
        search: Every probe of the search, in order.
        stability: Overlap with the sets that other seeds, classifiers or data give.
        source: The file that it was loaded from; not stored.
    """

    model: str
    revision: str | None
    layers: int
    types: tuple[str, ...]
    robust: tuple[str, ...]
    tau: float
    seeds: tuple[int, ...]
    fused: tuple[tuple[str, ...], ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    probe: dict[str, float] = field(default_factory=dict)
    search: tuple[dict[str, Any], ...] = ()
    stability: dict[str, Any] = field(default_factory=dict)
    source: str = field(default="robust_modules.yaml", metadata={"stored": False})

    def modules(self) -> frozenset[Module]:
        """The robust modules.

        Raises:
            InputError: A name is none, or stands twice.
        """
        found = [Module.parse(name) for name in self.robust]
        twice = sorted({module.name for module in found if found.count(module) > 1})
        if twice:
            raise InputError(
                f"{self.source}: {', '.join(twice)} stand twice in 'robust'; a module is in one group only"
            )
        return frozenset(found)

    def check(self, model_id: str, present: Sequence[Module], allow_other_model: bool = False) -> None:
        """Refuse a result that was found in another model.

        Args:
            model_id: Name of the model that is to be trained.
            present: Its modules.
            allow_other_model: Accept another name, such as that of a model made from the searched one; the modules
                must be there all the same.

        Raises:
            InputError: It does not fit.
        """
        self.check_model(model_id, allow_other_model)
        layers, types = 1 + max(m.layer for m in present), {m.type for m in present}
        if layers != self.layers or types != set(self.types):
            raise InputError(
                f"{self.source}: found in a model of {self.layers} layers with {', '.join(self.types)}; this one has "
                f"{layers} layers with {', '.join(sorted(types))}; search in this model"
            )
        if absent := sorted(self.modules() - set(present)):
            raise InputError(f"{self.source}: the model has no {', '.join(module.name for module in absent)}")

    def check_model(self, model_id: str, allow_other_model: bool = False) -> None:
        """The part of `check` that needs no weights."""
        if model_id != self.model and not allow_other_model:
            raise InputError(
                f"{self.source}: found in '{self.model}', but the model is '{model_id}'; search in this model, or set "
                "allow_other_model where one was made from the other"
            )

    def save(self, path: Path) -> None:
        """Write the YAML file; the same result always gives the same bytes."""
        stored = {f.name for f in fields(self) if f.metadata.get("stored", True)}
        content = {key: value for key, value in _plain(asdict(self)).items() if key in stored}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False, width=120), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "RobustModules":
        """Read what ``save`` wrote.

        Raises:
            InputError: There is no such file, or it is something else.
        """
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise InputError(f"{path}: no result of a search can be read: {error}") from error
        known = {f.name for f in fields(cls)} - {"source"}
        needed = {"model", "revision", "layers", "types", "robust", "tau", "seeds"}
        if not isinstance(content, dict) or not needed <= content.keys() <= known:
            raise InputError(
                f"{path}: not the result of a search; 'rod predict --config configs/mllr/1_probe_and_search.yaml' "
                "writes one"
            )
        for key in ("types", "robust", "seeds", "search"):
            content[key] = tuple(content.get(key) or ())
        content["fused"] = tuple(tuple(group) for group in content.get("fused") or ())
        result = cls(**content, source=str(path))
        result.modules()
        return result


def _plain(value: Any) -> Any:
    """Lists in place of tuples, which YAML has a tag for."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
