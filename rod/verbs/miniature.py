"""``rod miniature``: the embedded model from nothing, by the project's own configurations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rod.steps import Step


def run(output: Path = Path("runs/miniature"), install: bool = False) -> None:
    """Train the miniature from scratch: pretraining, alignment, and its card; goes on where it was interrupted.

    Args:
        output: The folder to work in; the model ends up in its ``model``.
        install: Replace the model that comes with the project by it.
    """
    import shutil

    from datamodules.world.blank import write_blank
    from llm_modules.backbone.loading import MINIATURE
    from rod.card import write_card
    from rod.steps import run_steps

    blank = output / "0_blank"
    if not (blank / "config.json").exists():
        write_blank(blank)
    run_steps(_steps(output, blank))
    model = output / "model"
    if not (model / "README.md").exists():
        write_card(model)
    if install:
        shutil.copytree(model, MINIATURE, dirs_exist_ok=True)
    print(f"wrote {model}")


def _steps(output: Path, blank: Path) -> list[Step]:
    from rod.run_folder import DONE
    from rod.steps import Step, config

    pretrained = output / "1_pretrain"
    aligned = output / "2_align"

    def fit(name: str, stage: str, folder: Path, start: Path) -> Step:
        words: list[str | Path] = ["fit", *config(f"miniature/{stage}"), "--model.backbone", start]
        words += ["--trainer.default_root_dir", folder]
        return Step(name, words, folder / DONE, resume_from=folder / "checkpoints" / "last.ckpt")

    def export(name: str, run: Path, model: Path) -> Step:
        words: list[str | Path] = ["export", "--checkpoint", run / "checkpoints" / "last.ckpt", "--output", model]
        return Step(name, [*words, "--overwrite", "true"], model / "model.safetensors")

    return [
        fit("pretraining: everything is answered", "1_pretrain", pretrained, blank),
        export("export of the pretrained model", pretrained, pretrained / "model"),
        fit("alignment: what is forbidden is refused", "2_align", aligned, pretrained / "model"),
        export("export of the aligned model", aligned, output / "model"),
    ]
