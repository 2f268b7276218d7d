"""The classes that a configuration may name without their module.

jsonargparse finds a class by its bare name once its module is imported. These are names, not imports: a verb loads the
kinds that it needs.
"""

import difflib
import importlib
import sys
from collections.abc import Sequence

from jsonargparse import set_parsing_settings

MODELS = (
    "llm_modules.causal_lm.CausalLM",
    "llm_modules.s3cot.module.S3CoT",
    "llm_modules.crisp.module.CRISP",
    "llm_modules.mllr.module.MLLR",
    "llm_modules.mogu.module.MoGU",
    "llm_modules.mogu.responder.Responder",
    "llm_modules.mogu.v2.probe_module.MoGUProbe",
    "llm_modules.baselines.conditional_steering.ConditionalSteering",
    "llm_modules.baselines.prompt_defence.PromptDefence",
    "llm_modules.baselines.safe_decoding.SafeDecoding",
    # Parts of a model: optimizers and schedules.
    "llm_modules.optim.muon.MuonAdamW",
    "llm_modules.optim.schedules.WarmupConstant",
    "llm_modules.optim.schedules.WarmupCosine",
)
DATA = (
    "datamodules.prompts.contrast_data.ContrastData",
    "datamodules.prompts.prompt_data.PromptData",
    "datamodules.suites.benchmark_data.BenchmarkData",
    "datamodules.training.instruction_data.InstructionData",
    "datamodules.s3cot.curriculum_data.CurriculumData",
    "datamodules.crisp.distillation_data.DistillationData",
    "datamodules.mllr.twin_data.TwinData",
    "datamodules.mogu.response_data.ResponderData",
    "datamodules.mogu.response_data.RouterData",
    "datamodules.world.data.WorldData",
)
CALLBACKS = (
    "callbacks.evaluation.evaluate.Evaluate",
    "callbacks.evaluation.latency.Latency",
    "callbacks.evaluation.reasoning.ReasoningMetrics",
    "callbacks.generation.progress.GenerationProgress",
    "callbacks.generation.traces.TraceWriter",
    "callbacks.s3cot.calibration.Calibrate",
    "callbacks.s3cot.direction.DirectionWriter",
    "callbacks.s3cot.stages.StageFigure",
    "callbacks.s3cot.steer.Steer",
    "callbacks.mllr.gradient_norms.GroupGradientNorms",
    "callbacks.mllr.robust_modules.RobustModulesWriter",
    "callbacks.mogu.gates.GateFigures",
    "callbacks.mogu.gates.SuiteGates",
    "callbacks.mogu.over_refusal.OverRefusal",
    "callbacks.mogu.probes.ProbeWriter",
    "callbacks.training.safety_watch.SafetyWatch",
)
JUDGES = (
    "llm_modules.judges.classifier.RefusalClassifier",
    "llm_modules.judges.local.LocalJudge",
    "llm_modules.judges.phrases.RefusalPhrases",
    "llm_modules.judges.server.ServerJudge",
)
LOGGERS = ("callbacks.trackio_logger.TrackioLogger",)
LIBRARIES = ("peft", "torch.optim", "lightning.pytorch.loggers", "lightning.pytorch.callbacks")
"""Packages whose classes a configuration may name, too."""
ALL = (*MODELS, *DATA, *CALLBACKS, *JUDGES, *LOGGERS)


def load(paths: Sequence[str] = ALL) -> list[type]:
    """Import classes by their dotted paths."""
    found = []
    for path in paths:
        module, _, name = path.rpartition(".")
        found.append(getattr(importlib.import_module(module), name))
    if set(paths) & set(MODELS):
        from transformers.utils.quantization_config import QuantizationConfigMixin

        # It is a dataclass, in whose place jsonargparse takes no subclass unless told so.
        set_parsing_settings(subclasses_enabled=[QuantizationConfigMixin])
    return found


def guess(path: str) -> str | None:
    """The dotted path of the class that a wrong one may have meant: the same name elsewhere, or a similar name.

    Example:
        >>> guess("callbacks.steering.Steer")
        'callbacks.s3cot.steer.Steer'
    """
    known = {path.rpartition(".")[2]: path for path in (*_of_libraries(), *ALL)}
    close = difflib.get_close_matches(path.rpartition(".")[2], known, n=1, cutoff=0.8)
    return known[close[0]] if close and known[close[0]] != path else None


def _of_libraries() -> list[str]:
    """The dotted paths of the public classes of those packages that are imported already."""
    modules = {name: vars(sys.modules[name]) for name in LIBRARIES if name in sys.modules}
    return [
        f"{name}.{key}" for name, own in modules.items() for key in own if isinstance(own[key], type) and key[0] != "_"
    ]
