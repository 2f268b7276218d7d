"""The methods with evidence, in the order of the demo."""

from collections.abc import Sequence

from rod.evidence.mllr.evidence import MLLREvidence
from rod.evidence.mogu.evidence import MoGUEvidence
from rod.evidence.rows import Evidence
from rod.evidence.s3cot.evidence import S3CoTEvidence

METHODS: Sequence[Evidence] = (S3CoTEvidence(), MLLREvidence(), MoGUEvidence())
