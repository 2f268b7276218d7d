"""S³-CoT (arXiv 2602.01982) for plain torch models: the variable-length direction and steering along it.

The LightningModule is `llm_modules.s3cot.module.S3CoT`.
"""

from llm_modules.generation.remote_steering import RemoteSteering
from llm_modules.s3cot.accumulator import DirectionAccumulator
from llm_modules.s3cot.direction import Direction, anchor_layer, random_like
from llm_modules.s3cot.formats import export_vectors, import_vectors, read_direction
from llm_modules.s3cot.layers import layer_indicator, select_layers
from llm_modules.s3cot.steering import Positions, Steering

__all__ = [
    "Direction",
    "DirectionAccumulator",
    "Positions",
    "RemoteSteering",
    "Steering",
    "anchor_layer",
    "export_vectors",
    "import_vectors",
    "layer_indicator",
    "random_like",
    "read_direction",
    "select_layers",
]
