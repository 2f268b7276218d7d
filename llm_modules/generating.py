"""A language model that completes prompts: what `CausalLM` is besides training."""

from functools import cached_property, partial
from typing import Any, ClassVar, cast

from peft import PeftConfig, PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from datamodules.batch import PromptBatch
from datamodules.errors import InputError
from llm_modules.backbone import loading
from llm_modules.backbone.checkpoint import TrainableCheckpoint
from llm_modules.backbone.quantization import Quantization
from llm_modules.backbone.vocabulary import check_vocabulary, padding_id, required_end_ids
from llm_modules.generation import Completion, EngineName, GenerationEngine, GenerationSettings
from llm_modules.generation.choice import check_engine, fitting_engine, make_engine
from llm_modules.generation.interface import ELSEWHERE, StartsProcess
from llm_modules.generation.remote_model import RemoteModel, remote_model
from llm_modules.generation.server_engine import ServerGenerator
from llm_modules.generation.vllm_engine import VllmGenerator


class Generating(TrainableCheckpoint):
    """Names a model, finds its tokenizer, and generates with the engine of its settings, here or in another process.

    A subclass loads the weights into ``model``, unless it `is_elsewhere`.

    Attributes:
        engines: The engines that can generate for the class.
    """

    engines: ClassVar[tuple[EngineName, ...]] = ("slots", "transformers", "vllm", "server")

    def __init__(
        self,
        *,
        backbone: str,
        revision: str | None,
        tokenizer: str | None,
        random_weights: bool,
        dtype: loading.DType,
        attn_implementation: str | None,
        trust_remote_code: bool,
        quantization: Quantization | None,
        peft: PeftConfig | None,
        adapter: str | None,
        generation: GenerationSettings | None,
    ) -> None:
        """Keep the settings; arguments as in `CausalLM`."""
        super().__init__()
        if peft is not None and adapter is not None:
            raise InputError("model.peft and model.adapter: give one, a new adapter to train or a folder with one")
        if not backbone:
            raise InputError("model.backbone: is empty; give a hub id, a folder, a GGUF file or miniature")
        self.backbone = backbone
        self.revision = revision
        self.tokenizer_name = tokenizer or backbone
        self.random_weights = random_weights
        self.weights_dtype = dtype
        self.attn_implementation = attn_implementation
        self.trust_remote_code = trust_remote_code
        self.quantization = quantization
        self.peft = peft
        self.adapter = adapter
        self.generation = generation or GenerationSettings()
        check_engine(self.generation.engine, self.engines, type(self).__name__)
        self.model: PreTrainedModel | PeftModel | None = None
        self.remote_model: RemoteModel | None = None

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer; needs no weights, so a DataModule can check its input first."""
        key = loading.BACKBONE if self.tokenizer_name == self.backbone else "model.tokenizer"
        return loading.load_tokenizer(self.tokenizer_name, self.revision, self.trust_remote_code, key=key)

    @cached_property
    def max_positions(self) -> int | None:
        """Longest input in tokens; needs no weights, so prompts can be checked first."""
        return loading.max_positions(self.backbone, self.revision, self.trust_remote_code)

    @property
    def model_id(self) -> str:
        """Name of the backbone in records and files."""
        return loading.model_id(self.backbone)

    @property
    def language_model(self) -> PreTrainedModel:
        """The Hugging Face model inside any adapter wrapper. RuntimeError if ``configure_model`` has not run.

        InputError if its weights are in another process.
        """
        if self.remote_model is not None:
            raise InputError(
                f"model.generation.engine: {self.engine} holds the weights in another process, and this run needs more "
                "of the model than its completions; use slots"
            )
        if self.model is None:
            raise RuntimeError("the model is not loaded yet: call configure_model first")
        inner = self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model
        return cast(PreTrainedModel, inner)

    @property
    def outline(self) -> PreTrainedModel:
        """The language model, to read its shape; if another process holds the weights, the same modules without."""
        return self.language_model if self.remote_model is None else self._without_weights

    @cached_property
    def _without_weights(self) -> PreTrainedModel:
        return loading.without_weights(self.backbone, self.revision, self.trust_remote_code)

    @cached_property
    def eos_ids(self) -> set[int]:
        """Ids of the tokens that end a completion."""
        return required_end_ids(self.outline, self.tokenizer, self.tokenizer_name)

    @property
    def pad_id(self) -> int:
        """Id of the token that fills up prompts."""
        return padding_id(self.outline, self.tokenizer)

    @cached_property
    def engine(self) -> EngineName:
        """The engine that generates: that of the settings, or ``transformers`` for a family that takes no cache.

        Needs no weights, so records of settings can name it. InputError if the class cannot generate with it.
        """
        if self.generation.engine != "slots":
            return self.generation.engine
        family = loading.read_config(self.backbone, self.revision, self.trust_remote_code).model_type
        return fitting_engine(family, self.engines, type(self).__name__)

    @cached_property
    def generator(self) -> GenerationEngine:
        """The generation engine; one for the life of the module, so that listeners are added once."""
        pad, ends = self.pad_id, self.eos_ids
        if self.remote_model is not None:
            return self.remote_engine(self.remote_model)
        model, synced = self.language_model, self.device_mesh is not None
        return make_engine(self.engine, model, self.generation, pad_id=pad, eos_ids=ends, synced=synced)

    def remote_engine(self, remote: RemoteModel) -> GenerationEngine:
        """The engine of the settings, for a model in another process."""
        outline, settings, pad, ends = self._without_weights, self.generation, self.pad_id, self.eos_ids
        if self.engine == "server":
            encode = partial(self.tokenizer.encode, add_special_tokens=False)
            return ServerGenerator(remote, outline, settings, pad_id=pad, eos_ids=ends, encode=encode)
        return VllmGenerator(remote, outline, settings, pad_id=pad, eos_ids=ends, device=self.device)

    def is_elsewhere(self) -> bool:
        """Whether another process holds the weights: vLLM, once there is a prompt, or a server. Works once.

        So it is in runs that only generate. InputError if it cannot load the model as it is set.
        """
        if self.remote_model is not None:
            return True
        if self.engine not in ELSEWHERE or self._trainer is None or self.trainer.state.fn == "fit":
            return False
        self.remote_model = self.as_remote(self.adapter)
        check_vocabulary(self.outline, self.tokenizer, self.backbone, self.tokenizer_name)
        return True

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
        """Generate one completion per row."""
        return self.complete(batch)

    def complete(self, batch: PromptBatch) -> list[Completion]:
        """Completions of the rows of the batch, in order; each row samples with its own seed."""
        budget = self.generator.settings.max_new_tokens
        return self.generator.generate(
            [row.token_ids for row in batch.rows],
            [row.seed for row in batch.rows],
            [row.max_new_tokens or budget for row in batch.rows],
        )

    def generation_identity(self) -> dict[str, Any]:
        """Further settings that completions depend on, besides model, adapter and generation; plain values."""
        return {}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Compare the checkpoint with what is trained; InputError also if another process holds the weights."""
        if self.remote_model is not None:
            raise InputError(
                f"ckpt_path: {self._loader} loads folders, no checkpoints; 'rod export' writes one for model.backbone, "
                "or use model.generation.engine: slots"
            )
        super().on_load_checkpoint(checkpoint)

    def teardown(self, stage: str) -> None:
        """End vLLM, if it runs."""
        self.end_vllm()

    def end_vllm(self) -> None:
        """End the process of vLLM, if it runs; the next prompt starts it again."""
        if isinstance(generator := self.__dict__.get("generator"), StartsProcess):
            generator.close()

    @property
    def _loader(self) -> str:
        """What loads the weights, in words."""
        return "vLLM" if self.engine == "vllm" else "the server"

    def as_remote(self, adapter: str | None) -> RemoteModel:
        """The backbone with an adapter as another process loads it; InputError if it cannot load it as it is set."""
        who = self._loader
        refused = {
            f"model.random_weights: {who} loads weights from files": self.random_weights,
            f"model.quantization: {who} has its own (of vLLM, its option quantization)": self.quantization,
            "model.peft: an adapter that is not trained; leave it out": self.peft,
            f"model.attn_implementation: {who} has its own; leave it out": self.attn_implementation,
            f"trainer.precision: {who} computes in model.dtype; set that one": self.trainer.precision != "32-true",
            f"trainer.strategy: {who} has the whole model; use ddp": self.device_mesh is not None,
        }
        return remote_model(
            self.backbone,
            loading.read_config(self.backbone, self.revision, self.trust_remote_code),
            revision=self.revision,
            dtype=self.weights_dtype,
            trust_remote_code=self.trust_remote_code,
            adapter=adapter,
            refused=[reason for reason, given in refused.items() if given],
        )
