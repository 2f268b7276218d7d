"""``rod export-direction``: a direction as a file that other programs steer with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal


def main(args: Sequence[str]) -> None:
    """Parse the options and export."""
    from rod.parser import Parser

    parser = Parser(prog="rod export-direction", description=(export_direction.__doc__ or "").splitlines()[0])
    parser.add_function_arguments(export_direction)
    options = parser.parse_args(list(args))
    print(f"wrote {export_direction(**options.as_dict())}")


def export_direction(
    direction: Path,
    format: Literal["lm-eval", "gguf", "layers"],
    layers: str,
    alpha: float,
    output: Path,
    overwrite: bool = False,
) -> Path:
    """Write alpha times the direction's vectors of some layers for lm-evaluation-harness, llama.cpp, repeng or others.

    Args:
        direction: File that ``rod predict`` with the DirectionWriter wrote.
        format: ``lm-eval`` (.pt for its ``steered`` models), ``gguf`` (control vector) or ``layers`` (safetensors with
            one ``direction.N`` a layer).
        layers: Which decoder layers: ``anchor:5``, ``deepest:4``, ``separated:4``, ``all`` or ``3,5-8``.
        alpha: Strength, part of the vectors that are written, to be served with a scale of 1; negative shortens.
        output: The file to write.
        overwrite: Replace a file that exists.
    """
    import math

    from datamodules.errors import InputError
    from llm_modules.s3cot.formats import export, read_direction
    from llm_modules.s3cot.layers import select_layers

    if not math.isfinite(alpha) or alpha == 0:
        raise InputError(f"--alpha: {alpha} steers nothing; give a finite number such as -0.2")
    if output.exists() and not overwrite:
        raise InputError(f"--output: '{output}' exists; name another file or pass --overwrite true")
    source = read_direction(direction)
    source.check()
    export(source, select_layers(layers, source), alpha, format, output)
    return output
