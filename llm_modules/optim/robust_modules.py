"""``robust_modules.yaml``: the result of a search for robust modules."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from datamodules.errors import InputError, first_line
from llm_modules.optim.module_names import Module


@dataclass(frozen=True)
class RobustModules:
    """The robust modules (the paper's Mods_Robust) with everything that the search depended on.

    Attributes:
        model: Hub id or folder of the model, see ``CausalLM.model_id``.
        revision: Commit of a hub id.
        layers: Number of decoder layers of the model.
        types: Types of modules of the model.
        fused: Groups of types that share a weight; the weight is robust if all of its types are.
        robust: Canonical names of the robust modules.
        tau: The drop that the search allowed.
        seeds: Seeds of the perturbations that guided the search.
        settings: Perturbation, measure, data and so on.
        probe: Scores of the probe on held-out pairs, with clean weights.
        search: Every set that the search measured, in order.
        stability: Overlap with the sets of searches with other seeds, probes or data.
        source: File that it was loaded from; not stored.
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
        """The robust modules; raises ``InputError`` if a name is malformed or occurs twice."""
        found = [Module.parse(name) for name in self.robust]
        twice = sorted({module.name for module in found if found.count(module) > 1})
        if twice:
            raise InputError(
                f"{self.source}: {', '.join(twice)} stand twice in 'robust'; a module is in one group only"
            )
        return frozenset(found)

    def check(self, model_id: str, present: Sequence[Module], allow_other_model: bool = False) -> None:
        """Raise ``InputError`` if the result is not of the model with this name and these modules.

        ``allow_other_model`` accepts another name, such as that of a fine-tune of the searched model.
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
        """The checks that need no weights."""
        if model_id != self.model and not allow_other_model:
            raise InputError(
                f"{self.source}: found in '{self.model}', but the model is '{model_id}'; search in this model, or set "
                "allow_other_model if one was made from the other"
            )

    def save(self, path: Path) -> None:
        """Write the YAML file; equal results give equal bytes."""
        stored = {f.name for f in fields(self) if f.metadata.get("stored", True)}
        content = {key: value for key, value in _plain(asdict(self)).items() if key in stored}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False, width=120), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "RobustModules":
        """Read a file that ``save`` wrote; raises ``InputError`` for any other."""
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            reason = error.strerror if isinstance(error, OSError) else first_line(error)
            raise InputError(
                f"learning_rates.result: no result of a search can be read from '{path}' ({reason}); make it with "
                "rod predict --config mllr/1_probe_and_search"
            ) from error
        known = {f.name for f in fields(cls)} - {"source"}
        needed = {"model", "revision", "layers", "types", "robust", "tau", "seeds"}
        if not isinstance(content, dict) or not needed <= content.keys() <= known:
            raise InputError(
                f"{path}: not the result of a search; 'rod predict --config mllr/1_probe_and_search' writes one"
            )
        for key in ("types", "robust", "seeds", "search"):
            content[key] = tuple(content.get(key) or ())
        content["fused"] = tuple(tuple(group) for group in content.get("fused") or ())
        result = cls(**content, source=str(path))
        result.modules()
        return result


def _plain(value: Any) -> Any:
    """Replace tuples, for which YAML would write a tag, by lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
