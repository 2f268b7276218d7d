"""``rod project``: project a fine-tune with SafeLoRA, a baseline of ML-LR."""

from pathlib import Path


def run(tuned: str, aligned: str, base: str, output: Path, threshold: float = 0.5, overwrite: bool = False) -> None:
    """Project what a fine-tune changed onto what alignment had changed (SafeLoRA), and write the model.

    Args:
        tuned: Folder of the fine-tuned model, as ``rod export --format merged`` writes it.
        aligned: The model that was fine-tuned: hub id, folder or miniature.
        base: The model before its alignment.
        output: The folder to write.
        threshold: A module's change is replaced by its projection if the cosine between them is below this.
        overwrite: Overwrite files in an output folder that is not empty.
    """
    from rich.console import Console

    from llm_modules.backbone.loading import load_model, load_tokenizer
    from llm_modules.baselines.safelora import project
    from rod.files import model_folder, require_empty

    require_empty(output, overwrite)
    model = load_model(tuned, key="--tuned")
    rows = project(model, load_model(aligned, key="--aligned"), load_model(base, key="--base"), threshold)
    with model_folder(output) as folder:
        model.save_pretrained(folder)
        load_tokenizer(aligned, key="--aligned").save_pretrained(folder)
    replaced = [row for row in rows if row.projected]
    names = ", ".join(f"{row.module.name} ({row.similarity:.2f})" for row in replaced[:5])
    more = f" and {len(replaced) - 5} more" if len(replaced) > 5 else ""
    Console().print(
        f"projected {len(replaced)} of {len(rows)} modules: {names or 'none'}{more}; wrote {output}", soft_wrap=True
    )
