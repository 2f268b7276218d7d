"""A MoGU without Lightning: mixtures in a Hugging Face model, generation, saving and loading."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from datamodules.errors import InputError
from llm_modules.backbone.loading import check_dtype, load_model
from llm_modules.generation import GenerationSettings
from llm_modules.mogu.adapters import LoRAAdapter, read_adapter
from llm_modules.mogu.config import Mode, RouterConfig
from llm_modules.mogu.decoding import MoGUGenerator
from llm_modules.mogu.folder import (
    BACKBONE,
    ROUTERS,
    check_base,
    has_backbone,
    load_routers,
    read_settings,
    write_folder,
)
from llm_modules.mogu.mixed_model import MixedModel


class MoGUModel(MixedModel):
    """A `MixedModel` that generates, is saved and is loaded.

    >>> from llm_modules.backbone.loading import load_model
    >>> from llm_modules.mogu import output_projections, random_adapter
    >>> base = load_model("miniature")
    >>> glad, unwilling = (random_adapter(output_projections(base), r=2, alpha=4, seed=seed) for seed in (0, 1))
    >>> mogu = MoGUModel(base, glad, unwilling, RouterConfig(layers=(2, 4)))
    >>> completions, gates = mogu.generate([[5, 6, 7]], GenerationSettings(max_new_tokens=3), gates=True)
    >>> completions[0].n_tokens
    3
    >>> gates[0].shape  # tokens that the mixture has read, layers, (glad, unwilling)
    torch.Size([5, 2, 2])

    Responders usually come from `read_adapter`. The attributes ``mode`` and ``m`` are the defaults of `generate`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        glad: LoRAAdapter,
        unwilling: LoRAAdapter,
        config: RouterConfig | None = None,
        adapted: PeftModel | None = None,
    ) -> None:
        """Put the mixtures in; arguments and errors as in `MixedModel`."""
        super().__init__(model, glad, unwilling, config, adapted)
        self.mode: Mode = "first_m"
        self.m = 5

    @classmethod
    def from_pretrained(
        cls, folder: Path | str, model: PreTrainedModel | None = None, *, base: str | None = None, **options: Any
    ) -> "MoGUModel":
        """Load a MoGU folder, in evaluation mode; InputError if it is broken or belongs to another base.

        Args:
            folder: As `save_pretrained` writes it.
            model: The base model; loaded by its name by default. It may be quantised or of another float type.
            base: Place of the base model, if it has moved.
            options: Of `llm_modules.backbone.loading.load_model`: ``dtype``, ``attn_implementation``, ...
        """
        folder = Path(folder)
        saved = read_settings(folder)
        glad, unwilling = (read_adapter(folder / name, f"mogu.{name}") for name in ("glad", "unwilling"))
        if model is None:
            check_dtype(options.get("dtype", "auto"))
            try:
                model = load_model(base or saved.base, **{"dtype": "auto", "revision": saved.revision} | options)
            except InputError as error:
                raise InputError(
                    f"mogu: the base model of '{folder}' cannot be loaded; if it has moved, say base='...' or give the "
                    f"model itself: MoGUModel.from_pretrained(folder, model): {error}"
                ) from error
        adapted = PeftModel.from_pretrained(model, folder / BACKBONE) if has_backbone(saved) else None
        mogu = cls(model, glad, unwilling, saved.router, adapted)
        try:
            check_base(mogu, folder, saved.base)
            load_routers(mogu, folder / ROUTERS)
        except InputError:
            mogu.unload()
            raise
        mogu.mode, mogu.m = saved.mode, saved.m
        model.eval()
        if saved.router.d_router == 0:
            mogu.fold()
        return mogu

    def save_pretrained(
        self,
        folder: Path | str,
        *,
        base: str,
        revision: str | None = None,
        training: dict[str, Any] | None = None,
        folded: bool = True,
    ) -> Path:
        """Write a MoGU folder.

        Args:
            folder: Files with the same names are replaced.
            base: Name of the base model.
            revision: Revision of the base model.
            training: Settings of the training, for the record.
            folded: Write each router as one logistic unit (a thousandth of the size), or as it was trained.
        """
        return write_folder(
            self, Path(folder), base, revision, mode=self.mode, m=self.m, training=training or {}, folded=folded
        )

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        settings: GenerationSettings | None = None,
        *,
        mode: Mode | None = None,
        m: int | None = None,
        eos_ids: Collection[int] | None = None,
        seeds: Sequence[int] | None = None,
        gates: bool = False,
    ) -> Any:
        """Complete prompts (token ids), greedily by default, with the model's own mode, m and end tokens by default.

        Returns:
            One ``Completion`` per prompt. With ``gates``, a pair: the completions, and by prompt the gates
            (tokens, layers, 2) of the tokens that the mixture has read.
        """
        generator = self.generator(settings or GenerationSettings(), mode=mode, m=m, eos_ids=eos_ids)
        generator.keep_gates = gates
        completions = generator.generate(prompts, seeds)
        return (completions, generator.gates) if gates else completions

    def generator(
        self,
        settings: GenerationSettings,
        *,
        mode: Mode | None = None,
        m: int | None = None,
        eos_ids: Collection[int] | None = None,
        pad_id: int = 0,
    ) -> MoGUGenerator:
        """The engine of `generate`, which also streams; arguments as there."""
        if eos_ids is None:
            own = self.model.generation_config.eos_token_id
            eos_ids = own if isinstance(own, list) else [own] if own is not None else []
        mode, m = mode if mode is not None else self.mode, m if m is not None else self.m
        return MoGUGenerator(self, settings, pad_id=pad_id, eos_ids=eos_ids, mode=mode, m=m)
