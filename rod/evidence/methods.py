"""The methods with evidence, in the order of the demo."""

from collections.abc import Sequence
from pathlib import Path

from rod.evidence.mllr.evidence import MLLREvidence
from rod.evidence.mogu.evidence import MoGUEvidence
from rod.evidence.real.mllr import RealMLLREvidence
from rod.evidence.real.mogu import RealMoGUEvidence
from rod.evidence.real.s3cot import RealS3CoTEvidence
from rod.evidence.real.together import RealTogetherEvidence
from rod.evidence.rows import Evidence
from rod.evidence.s3cot.curriculum_map import CurriculumMap
from rod.evidence.s3cot.evidence import S3CoTEvidence

METHODS: Sequence[Evidence] = (S3CoTEvidence(), CurriculumMap(), MLLREvidence(), MoGUEvidence())


def on_real_model(data: Path) -> Sequence[Evidence]:
    """The methods with evidence on a real model, on data sets in the folder ``data``."""
    return (RealS3CoTEvidence(data), RealMLLREvidence(data), RealMoGUEvidence(data), RealTogetherEvidence(data))
