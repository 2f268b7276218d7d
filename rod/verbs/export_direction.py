"""``rod export-direction``: write a direction as a steering vector for other programs."""

from pathlib import Path
from typing import Literal


def run(
    direction: Path,
    format: Literal["lm-eval", "gguf", "layers"],
    layers: str,
    alpha: float,
    output: Path,
    overwrite: bool = False,
) -> None:
    """Write a direction as a steering vector for lm-evaluation-harness, llama.cpp, repeng or others.

    The file holds alpha times the direction's vectors of the chosen layers. Serve it with a scale of 1.

    Args:
        direction: File that ``rod predict`` wrote with the DirectionWriter.
        format: ``lm-eval``: .pt for its ``steered`` models. ``gguf``: a control vector. ``layers``: safetensors with
            one ``direction.N`` for each layer.
        layers: Decoder layers: ``anchor:5``, ``deepest:4``, ``separated:4``, ``all`` or ``3,5-8``.
        alpha: Steering strength; negative shortens.
        output: The file to write.
        overwrite: Overwrite an existing file.
    """
    import math

    from datamodules.errors import InputError
    from llm_modules.s3cot import export_vectors, read_direction, select_layers
    from rod.files import require_new

    if not math.isfinite(alpha) or alpha == 0:
        raise InputError(f"--alpha: {alpha} steers nothing; give a finite number such as -0.2")
    require_new([output], overwrite)
    source = read_direction(direction)
    source.check()
    export_vectors(source, select_layers(layers, source), alpha, format, output)
    print(f"wrote {output}")
