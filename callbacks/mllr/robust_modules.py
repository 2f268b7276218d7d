"""The robust modules as what a ``predict`` run over malicious requests and their twins leaves behind."""

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
from llm_modules.backbone.loading import load_model
from llm_modules.mllr.investigation import Investigation, ProxySettings, investigate
from llm_modules.mllr.module import MLLR, rows_of
from llm_modules.mllr.perturb import Kind
from llm_modules.mllr.robustness import Measure, mean_drops
from llm_modules.mllr.search import SearchSettings, Suffix
from llm_modules.optim.robust_modules import RobustModules


class RobustModulesWriter(Callback):
    """Fits the security-feature classifier, maps the modules and searches for the robust ones (spec, sec. 1-3).

    Takes the prompts as the run goes over them, does its work at the end, and writes ``robust_modules.yaml``,
    ``robustness.csv`` (every raw measurement), ``robustness.png`` (type x layer, the robust set outlined) and
    ``search.png`` (the probes of the search in their order).
    """

    def __init__(
        self,
        output: Path | None = None,
        perturbation: Kind = "gaussian",
        eps: list[float] | None = None,
        pilot: str | None = None,
        measure: Measure = "margin",
        tau: float = 0.2,
        seeds: list[int] | None = None,
        check_seeds: list[int] | None = None,
        suffix: Suffix = "bisection",
        floor: float = 0.9,
        l2: float = 1.0,
        split_seed: int = 0,
        stability: bool = True,
        memory_gb: float = 1.0,
    ) -> None:
        """Say how to search.

        Args:
            output: The YAML file; ``robust_modules.yaml`` in the run's folder by default. Table and map go beside it.
            perturbation: ``gaussian``, ``zero``, ``scale`` or ``delta`` (needs ``pilot``).
            eps: Sizes relative to the weights, ascending; of several, the smallest at which some type breaks is used.
            pilot: For ``delta``: hub id or folder of the model after a short fine-tune.
            measure: What the drop is of: ``margin`` or ``malicious`` (malicious prompts), ``accuracy``, ``auroc``.
            tau: Greatest drop of a robust set.
            seeds: Of the perturbations that guide the search; three by default.
            check_seeds: Fresh ones for the joint re-check; three by default.
            suffix: ``bisection``, or ``linear`` for a look at every suffix.
            floor: Accuracy of the classifier on held-out pairs under which the run is refused.
            l2: Penalty of the classifier.
            split_seed: Of the split of the pairs.
            stability: Repeat the search with other seeds, classifiers and data, and report the overlap.
            memory_gb: What kept activations may take.
        """
        search = SearchSettings(tau, measure, tuple(seeds or (0, 1, 2)), tuple(check_seeds or (100, 101, 102)), suffix)
        self.settings = ProxySettings(
            perturbation, tuple(eps or (0.6,)), floor, l2, split_seed, stability, 32, memory_gb, search
        )
        self.output, self.pilot = output, pilot
        self.investigation: Investigation | None = None
        self._malicious: list[list[int]] = []
        self._benign: list[list[int]] = []
        self._ids: list[str] = []

    def file(self, trainer: Trainer) -> Path:
        """Where the result goes."""
        return self.output or Path(trainer.default_root_dir) / "robust_modules.yaml"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look at model, data and output before any weights are loaded.

        Raises:
            InputError: They are not what a search is made of, or another folder's file would be overwritten.
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
        """Take the prompts of a batch."""
        self._malicious += rows_of(batch.positive_ids, batch.positive_mask)
        self._benign += rows_of(batch.negative_ids, batch.negative_mask)
        self._ids += batch.ids

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Probe, map, search; write the files."""
        module = language_model(pl_module)
        data: TwinData = datamodule_of(trainer)
        family = dict(zip((pair.id for pair in data.pairs), families(data.pairs), strict=True))
        settings = self.settings
        pilot = load_model(self.pilot, dtype=module.weights_dtype) if self.pilot else None
        result = self.investigation = investigate(
            module.language_model,
            self._malicious,
            self._benign,
            [family[name] for name in self._ids],
            settings,
            pilot=pilot,
            pad_id=module.tokenizer.pad_token_id or 0,
            report=rank_zero_info,
        )
        path = self.file(trainer)
        written = self._result(module, data, result)
        written.save(path)
        _write_table(result, path.with_name("robustness.csv"))
        used = [one for eps, one in result.measurements if eps == result.eps]
        drops = mean_drops(used, settings.search.measure)
        figure = path.with_name("robustness.png")
        plot_robustness(drops, result.found.robust, figure, measure=settings.search.measure, model=module.model_id)
        log_figure(trainer, "robustness", figure)
        path_figure = path.with_name("search.png")
        plot_search(result.found.trace, settings.search.tau, path_figure, measure=settings.search.measure)
        log_figure(trainer, "search", path_figure)
        for line in _summary(result, len(drops), settings):
            rank_zero_info(line)
        rank_zero_info(f"robust modules: {path}")

    def _result(self, module: MLLR | Any, data: TwinData, result: Investigation) -> RobustModules:
        model, settings, found = module.language_model, self.settings, result.found
        types = {one.type for _, m in result.measurements for one in m.modules}
        return RobustModules(
            model=module.model_id,
            revision=getattr(model.config, "_commit_hash", None) or module.revision,
            layers=num_layers(model),
            types=tuple(kind for kind in ("q", "k", "v", "o", "gate", "up", "down") if kind in types),
            fused=result.fused,
            robust=tuple(m.name for m in sorted(found.robust, key=lambda m: (m.type, m.layer))),
            tau=settings.search.tau,
            seeds=settings.search.seeds,
            settings={
                **{key: value for key, value in asdict(settings).items() if key != "search"},
                **asdict(settings.search),
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


def _summary(result: Investigation, n_modules: int, settings: ProxySettings) -> list[str]:
    found, work = result.found, result.work
    order = ", ".join(f"{kind} {drop:.3f}" for kind, drop in found.order.items())
    lines = [
        f"{len(found.robust)} of {n_modules} modules are robust: perturbed together (eps {result.eps:g}) the "
        f"{settings.search.measure} drops by {found.drop:.3f} of {settings.search.tau:g} allowed",
        f"types by joint drop: {order}",
        f"{work.requests} probes, {work.passes} passes in {result.seconds:.0f} s; layer evaluations {work.done:,} of "
        f"{work.full:,} that whole passes would take",
        *(f"not monotone: {case}" for case in found.non_monotone),
    ]
    if found.unfused:
        names = ", ".join(module.name for module in found.unfused)
        lines.append(f"given up, as their fused weight holds a sensitive part: {names}")
    lines += [f"overlap with {name}: {value:.2f}" for name, value in result.stability.items()]
    return lines
