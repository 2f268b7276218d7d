"""``rod miniature``: train the embedded model from scratch, with the project's own configurations."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rod.steps import Step


def run(output: Path = Path("runs/miniature"), install: bool = False) -> None:
    """Train the miniature from scratch: pretraining, alignment, and its model card.

    An interrupted run continues from its last checkpoint.

    Args:
        output: The folder to work in. The model is written to its ``model``.
        install: Replace the model that comes with the project by the new one.
    """
    import shutil

    from datamodules.world.blank import write_blank
    from llm_modules.backbone.loading import MINIATURE
    from rod.steps import run_steps

    blank = output / "0_blank"
    if not (blank / "config.json").exists():
        write_blank(blank)
    run_steps(_steps(output, blank))
    model = output / "model"
    if not (model / "README.md").exists():
        _write_card(model)
    if install:
        shutil.copytree(model, MINIATURE, dirs_exist_ok=True)
    print(f"wrote {model}")


def _steps(output: Path, blank: Path) -> "list[Step]":
    from rod.run_folder import DONE
    from rod.steps import Step, config

    pretrained = output / "1_pretrain"
    aligned = output / "2_align"

    def fit(name: str, stage: str, folder: Path, start: Path) -> Step:
        words: list[str | Path] = ["fit", *config(f"miniature/{stage}"), "--model.backbone", start]
        words += ["--trainer.default_root_dir", folder]
        return Step(name, words, folder / DONE)

    def export(name: str, run: Path, model: Path) -> Step:
        words: list[str | Path] = ["export", "--checkpoint", run / "checkpoints" / "last.ckpt", "--output", model]
        return Step(name, [*words, "--overwrite", "true"], model / "model.safetensors")

    return [
        fit("pretraining: everything is answered", "1_pretrain", pretrained, blank),
        export("export of the pretrained model", pretrained, pretrained / "model"),
        fit("alignment: what is forbidden is refused", "2_align", aligned, pretrained / "model"),
        export("export of the aligned model", aligned, output / "model"),
    ]


def _write_card(model: Path, problems: int = 500, temperature: float = 0.7, seed: int = 0) -> None:
    """Measure the model of a folder and write its ``README.md``."""
    from datamodules.world import card
    from llm_modules.causal_lm import CausalLM
    from llm_modules.generation import GenerationSettings

    module = CausalLM(str(model), generation=GenerationSettings(max_new_tokens=400, slots=128))
    module.configure_model()
    scores = []
    for prompts in card.prompt_sets("test", problems):
        module.generator.settings.temperature = temperature if prompts.sampled else 0.0
        completions = module.complete(prompts.batch(module.tokenizer, seed))
        answers = [str(module.tokenizer.decode(list(c.token_ids), skip_special_tokens=True)) for c in completions]
        scores.append(card.score(prompts, answers, [c.n_tokens for c in completions]))
    config = module.language_model.config
    readme = card.text(
        scores,
        parameters=module.language_model.num_parameters(),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        problems=problems,
        temperature=temperature,
        seed=seed,
    )
    (model / "README.md").write_text(readme, encoding="utf-8")
