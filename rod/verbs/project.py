"""``rod project``: SafeLoRA's projection of a finished fine-tune, as a control of ML-LR."""

from collections.abc import Sequence
from pathlib import Path


def main(args: Sequence[str]) -> None:
    """Parse the options and project."""
    from rod.parser import Parser

    parser = Parser(prog="rod project", description=str(run.__doc__).partition("Args:")[0])
    parser.add_function_arguments(run, as_group=False)
    run(**parser.parse_args(list(args)).as_dict())


def run(tuned: str, aligned: str, base: str, output: Path, threshold: float = 0.5, overwrite: bool = False) -> Path:
    """Project what a fine-tune changed onto what alignment had changed, and write the model.

    Args:
        tuned: Folder of the fine-tuned model (``rod export --format merged`` writes one).
        aligned: The model that was fine-tuned: hub id, folder or miniature.
        base: The model before its alignment.
        output: The folder to write.
        threshold: Changes whose cosine with their projection is under this are replaced.
        overwrite: Replace files in an output folder that exists.
    """
    from rich.console import Console

    from datamodules.errors import InputError
    from llm_modules.backbone.loading import load_model, load_tokenizer
    from llm_modules.baselines.safelora import project

    if output.exists() and any(output.iterdir()) and not overwrite:
        raise InputError(f"--output: '{output}' is not empty; name another folder or pass --overwrite true")
    model = load_model(tuned)
    rows = project(model, load_model(aligned), load_model(base), threshold)
    model.save_pretrained(output)
    load_tokenizer(aligned).save_pretrained(output)
    replaced = [row for row in rows if row.projected]
    names = ", ".join(f"{row.module.name} ({row.similarity:.2f})" for row in replaced[:5])
    more = f" and {len(replaced) - 5} more" if len(replaced) > 5 else ""
    Console().print(
        f"projected {len(replaced)} of {len(rows)} modules: {names or 'none'}{more}; wrote {output}", soft_wrap=True
    )
    return output
