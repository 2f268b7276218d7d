"""The callback that searches for the robust modules in a ``predict`` run over malicious requests and their twins."""

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from callbacks.mllr.figures import plot_robustness, plot_search
from callbacks.trainer_parts import datamodule_of, language_model, log_figure
from datamodules.batch import ContrastBatch
from datamodules.errors import InputError
from datamodules.mllr.twin_data import TwinData, families
from llm_modules.backbone.architecture import num_layers
from llm_modules.backbone.loading import load_model, read_config, require_model
from llm_modules.mllr.investigation import Investigation, ProxySettings, investigate
from llm_modules.mllr.module import MLLR, rows_of
from llm_modules.mllr.robustness import mean_drops
from llm_modules.mllr.search import SearchSettings
from llm_modules.optim.module_names import TYPES, Module
from llm_modules.optim.robust_modules import RobustModules

_PILOT = "RobustModulesWriter.pilot"
_FIGURES = ("robustness", "search")


class RobustModulesWriter(Callback):
    """Fits the security probe, maps the modules and searches for the robust ones (paper) at the end of a run.

    Writes ``robust_modules.yaml``, ``robustness.csv`` (every raw measurement), ``robustness.png`` (type x layer, the
    robust set outlined) and ``search.png`` (the sets that the search measured, in order).
    """

    def __init__(
        self,
        output: Path | None = None,
        pilot: str | None = None,
        proxy: ProxySettings | None = None,
        search: SearchSettings | None = None,
    ) -> None:
        """Set up the search.

        Args:
            output: The YAML file; ``robust_modules.yaml`` in the run's folder by default. The others go beside it.
            pilot: Hub id or folder of the model after a short fine-tune, for the perturbation ``delta``.
            proxy: How the probe is fitted and how modules are perturbed.
            search: What the search allows and how it looks.
        """
        self.proxy, self.search = proxy or ProxySettings(), search or SearchSettings()
        self.output, self.pilot = output, pilot
        self.investigation: Investigation | None = None
        self._malicious: list[list[int]] = []
        self._benign: list[list[int]] = []
        self._ids: list[str] = []

    def file(self, trainer: Trainer) -> Path:
        """The file that the result is written to."""
        return self.output or Path(trainer.default_root_dir) / "robust_modules.yaml"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check model, data and output before any weights are loaded.

        InputError if model or data do not fit, or the output exists.
        """
        if stage != "predict":
            return
        if not isinstance(pl_module, MLLR):
            raise InputError(f"model: RobustModulesWriter needs the model MLLR, not {type(pl_module).__name__}")
        if not isinstance(datamodule_of(trainer), TwinData):
            raise InputError("data: RobustModulesWriter needs malicious requests with benign twins; use TwinData")
        if trainer.world_size > 1:
            raise InputError("trainer.devices: the search perturbs one model's weights; run it on one device")
        if self.output is not None and self.output.exists():
            raise InputError(f"RobustModulesWriter.output: '{self.output}' exists; remove it or name another file")
        if self.pilot is not None:
            folder = f"rod export --checkpoint runs/mllr/0_pilot/checkpoints/last.ckpt --output {self.pilot}"
            remedy = f"rod fit --config mllr/0_pilot and {folder} make the shipped one"
            require_model(self.pilot, key=_PILOT, remedy=remedy)
            read_config(self.pilot, key=_PILOT)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start with no prompts."""
        self._malicious, self._benign, self._ids = [], [], []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: ContrastBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the prompts of a batch."""
        self._malicious += rows_of(batch.positive_ids, batch.positive_mask)
        self._benign += rows_of(batch.negative_ids, batch.negative_mask)
        self._ids += batch.ids

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit the probe, map, search, and write the files."""
        module = language_model(pl_module)
        data: TwinData = datamodule_of(trainer)
        family = dict(zip((pair.id for pair in data.pairs), families(data.pairs), strict=True))
        result = self.investigation = investigate(
            module.language_model,
            self._malicious,
            self._benign,
            [family[name] for name in self._ids],
            self.proxy,
            self.search,
            pilot=load_model(self.pilot, dtype=module.weights_dtype, key=_PILOT) if self.pilot else None,
            pad_id=module.pad_id,
            report=rank_zero_info,
        )
        path = self.file(trainer)
        self._result(module, data, result).save(path)
        _write_table(result, path.with_name("robustness.csv"))
        drops = mean_drops([one for eps, one in result.measurements if eps == result.eps], self.search.measure)
        self._draw(trainer, result, drops, path, module.model_id)
        for line in _summary(result, len(drops), self.search):
            rank_zero_info(line)
        rank_zero_info(f"robust modules: {path}")

    def _draw(
        self, trainer: Trainer, result: Investigation, drops: dict[Module, float], path: Path, model_id: str
    ) -> None:
        measure, figures = self.search.measure, {name: path.with_name(f"{name}.png") for name in _FIGURES}
        plot_robustness(drops, result.found.robust, figures["robustness"], measure=measure, model=model_id)
        plot_search(result.found.trace, self.search.tau, figures["search"], measure=measure)
        for name, figure in figures.items():
            log_figure(trainer, name, figure)

    def _result(self, module: MLLR | Any, data: TwinData, result: Investigation) -> RobustModules:
        model, found = module.language_model, result.found
        types = {one.type for _, m in result.measurements for one in m.modules}
        return RobustModules(
            model=module.model_id,
            revision=getattr(model.config, "_commit_hash", None) or module.revision,
            layers=num_layers(model),
            types=tuple(kind for kind in TYPES if kind in types),
            fused=result.fused,
            robust=tuple(m.name for m in sorted(found.robust, key=lambda m: (m.type, m.layer))),
            tau=self.search.tau,
            seeds=self.search.seeds,
            settings={
                **asdict(self.proxy),
                **asdict(self.search),
                "eps": result.eps,
                "pairs": data.pairs_file.name,
                "n_pairs": result.n_pairs,
                "pilot": self.pilot,
            },
            probe=result.scores.as_dict(),
            search=found.trace,
            stability={
                **result.stability,
                "order": {kind: round(drop, 6) for kind, drop in found.order.items()},
                "final_drop": round(found.drop, 6),
                "non_monotone": list(found.non_monotone),
                "given_up_as_fused": [module.name for module in found.unfused],
            },
        )


def _write_table(result: Investigation, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        scores = list(result.scores.as_dict())
        drops = [f"{measure}_drop" for measure in result.measurements[0][1].drops]
        writer.writerow(["type", "layer", "eps", "seed", *scores, *drops, "robust"])
        for eps, one in result.measurements:
            (module,) = one.modules
            values = [f"{value:.6g}" for value in (*one.scores.as_dict().values(), *one.drops.values())]
            robust = int(module in result.found.robust)
            writer.writerow([module.type, module.layer, eps, one.seed, *values, robust])


def _summary(result: Investigation, n_modules: int, search: SearchSettings) -> list[str]:
    found, work = result.found, result.work
    order = ", ".join(f"{kind} {drop:.3f}" for kind, drop in found.order.items())
    lines = [
        f"{len(found.robust)} of {n_modules} modules are robust: perturbed together (eps {result.eps:g}) the "
        f"{search.measure} drops by {found.drop:.3f} of {search.tau:g} allowed",
        f"types by joint drop: {order}",
        f"{work.requests} measurements, {work.passes} forward passes in {result.seconds:.0f} s; {work.done:,} layer "
        f"evaluations, {work.full:,} without restarts",
        *(f"not monotone: {case}" for case in found.non_monotone),
    ]
    if found.unfused:
        names = ", ".join(module.name for module in found.unfused)
        lines.append(f"given up because their fused weight has a sensitive part: {names}")
    lines += [f"overlap with {name}: {value:.2f}" for name, value in result.stability.items()]
    return lines
