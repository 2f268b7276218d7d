"""``rod verify``: whether a model works with every method, in a minute."""

import importlib.metadata
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.table import Table

    from rod.verify.subject import Result


def run(
    model: str,
    /,
    tokenizer: str | None = None,
    chat_template: str | None = None,
    chat_template_kwargs: dict[str, Any] | None = None,
    revision: str | None = None,
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "float32",
    quantization: Literal["4bit", "8bit"] | None = None,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    random_weights: bool = False,
    device: str = "auto",
    output: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Check a model: its layers, modules, loss and generation, what each method does to it, and its prompts.

    Each check compares two ways to the same numbers, such as generation with and without a cache. The status is not 0
    if a check fails. docs/models.md says what the checks are and which families pass them.

    Args:
        model: Hub id, folder, GGUF file, or ``miniature``.
        tokenizer: Hub id or folder of a tokenizer; the model's own by default.
        chat_template: A jinja file or ``plain``; the tokenizer's own by default.
        chat_template_kwargs: Arguments of the template, such as ``{enable_thinking: false}``; see `ChatTemplate`.
        revision: Branch, tag or commit of a hub id.
        dtype: Type of the weights. In float32 the numbers must agree to 1e-4 of their spread, else to 5e-2.
        quantization: Weights of 4 or 8 bits.
        attn_implementation: ``sdpa``, ``eager``, ``flash_attention_2``; transformers chooses by default.
        trust_remote_code: Run code that comes with the checkpoint.
        random_weights: Build the model from its configuration alone.
        device: Such as ``cpu`` or ``cuda:1``; a GPU if there is one by default.
        output: JSON file for the results.
        overwrite: Replace that file.
    """
    from rod.files import require_new

    if output is not None:
        require_new([output], overwrite)

    import torch
    from rich.progress import track

    from callbacks.columns import terminal
    from datamodules.errors import InputError
    from datamodules.writing import replacing
    from llm_modules.backbone.device import choose_device
    from llm_modules.backbone.loading import load_model, load_tokenizer, read_config
    from rod.verify.method_checks import METHOD_CHECKS
    from rod.verify.model_checks import MODEL_CHECKS
    from rod.verify.prompt_checks import PROMPT_CHECKS
    from rod.verify.subject import Check, Subject, attempt

    place = choose_device(device)
    read_config(
        model, revision, trust_remote_code, key="model"
    )  # its errors are about the model, those of a tokenizer are not
    own_tokenizer = load_tokenizer(
        tokenizer or model, revision, trust_remote_code, key="--tokenizer" if tokenizer else "model"
    )
    loaded = load_model(
        model,
        revision=revision,
        dtype=dtype,
        attn_implementation=attn_implementation,
        trust_remote_code=trust_remote_code,
        random_weights=random_weights,
        quantization=quantization,
        key="model",
    ).eval()
    if quantization is None:
        torch.nn.Module.to(loaded, place)
    subject = Subject(loaded, own_tokenizer, chat_template, chat_template_kwargs or {})
    console = terminal()
    checks: tuple[Check, ...] = (*MODEL_CHECKS, *METHOD_CHECKS, *PROMPT_CHECKS)
    results = [attempt(check, subject) for check in track(checks, "checks", console=console, transient=True)]
    console.print(_table(results, model))
    if output is not None:
        record = _record(results, model, loaded.config.model_type, dtype)
        with replacing(output) as file:
            file.write((json.dumps(record, indent=2) + "\n").encode())
        console.print(f"wrote {output}", highlight=False, soft_wrap=True)
    failed = [result.check for result in results if result.status == "fails"]
    if failed:
        raise InputError(f"{model}: {len(failed)} of {len(results)} checks fail: {', '.join(failed)}")


def _table(results: "list[Result]", model: str) -> "Table":
    from rich.markup import escape
    from rich.table import Table

    colours = {"passes": "green", "fails": "red", "does not apply": "dim"}
    table = Table("check", "", "found", title=model, title_justify="left")
    for result in results:
        table.add_row(result.check, f"[{colours[result.status]}]{result.status}[/]", escape(result.found))
    return table


def _record(results: "list[Result]", model: str, family: str, dtype: str) -> dict[str, object]:
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft")}
    return {
        "model": model,
        "family": family,
        "dtype": dtype,
        "versions": versions,
        "checks": [asdict(result) for result in results],
    }
