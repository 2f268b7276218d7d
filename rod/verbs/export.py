"""``rod export``: write a trained model in the layouts that other tools load."""

from pathlib import Path
from typing import Literal


def run(
    checkpoint: Path,
    output: Path,
    format: Literal["peft", "merged", "mogu"] = "merged",
    config: Path | None = None,
    overwrite: bool = False,
    push: str | None = None,
) -> None:
    """Write a trained model as a PEFT adapter folder or as a whole Hugging Face model, in safetensors, with its card.

    Args:
        checkpoint: A Lightning checkpoint (``.ckpt``) of a run.
        output: The folder to write.
        format: ``peft``: the adapter alone. ``merged``: a model that plain transformers loads. ``mogu``: the folder of
            a MoGU, which cannot be merged.
        config: The run's ``config.yaml``. By default, the nearest one in the folders above the checkpoint.
        overwrite: Overwrite files in an output folder that is not empty.
        push: Repository of the hub (OWNER/NAME) to upload the folder to, made private if it is new. It takes the
            account of ``hf auth login`` or the environment's HF_TOKEN.
    """
    from peft import PeftModel

    from datamodules.errors import InputError
    from llm_modules.backbone.adapters import merge
    from llm_modules.backbone.checksums import CHECKSUMS
    from llm_modules.mogu.mixture import MERGE_REFUSED
    from llm_modules.mogu.module import MoGU
    from rod.files import model_folder, require_empty
    from rod.load import config_of, load_module, steps_of
    from rod.model_card import model_card

    require_empty(output, overwrite, format)
    config = config or config_of(checkpoint)
    module = load_module(config, checkpoint)
    model = module.model
    if isinstance(module, MoGU) and format != "mogu":
        other = "a MoGU is two adapters and routers; mogu writes both adapters as PEFT folders"
        raise InputError(f"--format: {other if format == 'peft' else MERGE_REFUSED}")
    with model_folder(output) as folder:
        if isinstance(module, MoGU):
            module.save(folder)
        elif format == "mogu":
            raise InputError(f"--format: this run trained a {type(module).__name__}, not a MoGU; use peft or merged")
        elif format == "peft":
            if not isinstance(model, PeftModel):
                raise InputError("--format: this run trained the whole model, not an adapter; use --format merged")
            model.save_pretrained(str(folder))
        else:
            whole = merge(model) if isinstance(model, PeftModel) else module.language_model
            whole.save_pretrained(folder)
        module.tokenizer.save_pretrained(folder)
        name, method = push or output.resolve().name, type(module).__name__
        card = model_card(name, format, method, module.model_id, config, steps_of(checkpoint))
        (folder / "README.md").write_text(card, encoding="utf-8")
        written = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    print(f"wrote {output}")
    if push is not None:
        print(f"uploaded to {_upload(output, push, [*written, CHECKSUMS])}")


def _upload(folder: Path, repository: str, files: list[str]) -> str:
    """Upload files of a folder to the hub, and return the address."""
    from huggingface_hub import HfApi

    from datamodules.errors import InputError, first_line

    api = HfApi()
    try:
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=files)
    except Exception as error:  # of the hub, of its name's form, of the network under it
        raise InputError(
            f"--push: '{repository}' could not be uploaded to ({first_line(error)}); '{folder}' is whole, and with "
            f"`hf auth login` done, `hf upload {repository} {folder}` does the rest"
        ) from error
    return str(address)
