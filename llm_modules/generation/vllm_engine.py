"""The engine ``vllm``: vLLM in a process and an environment of its own."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from transformers import PreTrainedModel

from datamodules.errors import InputError
from llm_modules.generation.engine import GenerationEngine, RemoteRows
from llm_modules.generation.interface import Completion, GenerationSettings, Steered
from llm_modules.generation.remote_model import RemoteModel
from llm_modules.generation.remote_steering import RemoteSteering, remote_steering
from llm_modules.generation.vllm_process import VllmProcess, visible_devices, vllm_version
from llm_modules.generation.vllm_worker.rod_environment import EXTENSION, SAMPLING

IN_FLIGHT = 2
"""Rows that vLLM holds, as a multiple of ``slots``: the others wait here."""


def _options(model: RemoteModel) -> dict[str, Any]:
    """The fields of vLLM's ``EngineArgs`` for a model."""
    adapter = {"enable_lora": True, "max_lora_rank": model.rank} if model.adapter else {}
    return {
        "model": model.path,
        "revision": model.revision,
        "dtype": model.dtype,
        "trust_remote_code": model.trust_remote_code,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",  # a checkpoint's own settings do not count
        **adapter,
    }


_OURS = {
    *("max_num_seqs", "worker_extension_cls", "logits_processors", "async_scheduling"),
    *_options(RemoteModel("", adapter="any")),
}
"""Options of vLLM that follow from others."""
PLACEMENT = {
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "distributed_executor_backend",
    "gpu_memory_utilization",
    "kv_cache_memory_bytes",
    "max_num_batched_tokens",
    "enforce_eager",
    "enable_prefix_caching",
    "enable_chunked_prefill",
}
"""Options of vLLM about where and with how much memory it runs."""


class VllmGenerator(GenerationEngine):
    """Lets a vLLM process complete rows; it starts with the first of them and ends with `close`.

    Tokens are those of the other engines but for rounding, sampled ones too: each row draws from the stream of its
    seed.
    """

    name = "vllm"

    def __init__(
        self,
        model: RemoteModel,
        outline: PreTrainedModel,
        settings: GenerationSettings,
        *,
        pad_id: int,
        eos_ids: Collection[int],
        device: torch.device | None = None,
    ) -> None:
        """Prepare generation; nothing is started.

        Args:
            model: What vLLM loads.
            outline: The same model without weights.
            settings: May be replaced between calls; ``vllm`` may not.
            pad_id: Any token of the vocabulary.
            eos_ids: Tokens that end a completion; empty if only its length ends it.
            device: Device of this process, whose number chooses the GPUs of vLLM; the CPU leaves it to vLLM.

        Raises:
            InputError: vLLM is not installed, or an option of it is one that this engine sets itself.
        """
        super().__init__(settings, pad_id=pad_id, eos_ids=eos_ids)
        self.version = vllm_version(settings.vllm.interpreter)
        for name in settings.vllm.options:
            if name in _OURS:
                where = "model.generation.slots" if name == "max_num_seqs" else "the options of model"
                raise InputError(f"model.generation.vllm.options: {name} follows from {where}; leave it out")
        self.remote_model, self._device = model, device or torch.device("cpu")
        self.read_positions(outline)
        for name in ("max_model_len", "tensor_parallel_size", "pipeline_parallel_size"):
            given = settings.vllm.options.get(name, 1)
            if not isinstance(given, int) or given < 1:
                raise InputError(f"model.generation.vllm.options: {name} is {given!r}; give a number from 1 on")
        longest = settings.vllm.options.get("max_model_len")
        if longest is not None:
            self.max_positions = min(longest, self.max_positions or longest)
        self._process: VllmProcess | None = None
        self._steers = False  # whether the process was started for steering
        self._steering: RemoteSteering | None = None
        self._next = 0  # requests of earlier calls have lower numbers

    def close(self) -> None:
        """End the process; a later call starts it again."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _complete(
        self, prompts: Sequence[Sequence[int]], seeds: Sequence[int], limits: Sequence[int]
    ) -> list[Completion]:
        steering = remote_steering(self.listeners)
        if not prompts:
            return []
        rows, left = RemoteRows(self, len(prompts)), len(prompts)
        try:
            process = self._ready(steering)
            first, self._next = self._next, self._next + len(prompts)
            requests = self._requests(prompts, seeds, limits, steering, first)
            in_flight = 0
            while left:
                while in_flight < IN_FLIGHT * self.settings.slots and (request := next(requests, None)) is not None:
                    process.send(request)
                    in_flight += 1
                message = process.receive()
                if "tokens" in message:
                    self.tokens_generated(message["tokens"])
                    continue
                in_flight -= 1
                left -= 1
                row = message["row"] - first
                if "failed" in message:
                    rows.fail(row, message["failed"])
                    continue
                steered = Steered(*(message["steered"] or (0, 0.0))) if steering is not None else None
                rows.complete(row, tuple(message["ids"]), steered)
        except BaseException:  # a listener ends the call, too: what is in flight must not come with the next one
            self.close()
            raise
        return rows.in_order()

    def _requests(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        limits: Sequence[int],
        steering: RemoteSteering | None,
        first: int,
    ) -> Iterator[dict[str, Any]]:
        """The requests for rows; made when they are sent."""
        for row, prompt in enumerate(prompts):
            # With a temperature the row's own random numbers choose, and leave vLLM one possible token.
            sampling = {"temperature": 0.0, "max_tokens": limits[row], "stop_token_ids": sorted(self.eos_ids)}
            yield {
                "row": first + row,
                "prompt": list(prompt),
                "strengths": steering.of(row) if steering is not None else {},
                "sampling": sampling,
                "draws": self.settings.draws(seeds[row], self.drawn),
            }

    def _ready(self, steering: RemoteSteering | None) -> VllmProcess:
        """The process, started if need be, with this steering."""
        if self._process is not None and steering is not None and not self._steers:
            self.close()  # it may run compiled code, which ignores steering
        if self._process is None:
            self._start(steering is not None)
        assert self._process is not None
        if steering is not self._steering:
            self._process.send({"steer": steering.message() if steering is not None else None})
            self._steering = steering
        return self._process

    def _start(self, steers: bool) -> None:
        settings = self.settings.vllm
        options: dict[str, Any] = {
            "max_num_seqs": self.settings.slots,
            "worker_extension_cls": EXTENSION,
            "logits_processors": [SAMPLING],
            "async_scheduling": False,  # a pass that is scheduled ahead of a row's end would be counted
            **_options(self.remote_model),
            **settings.options,
        }
        if steers:
            options["enforce_eager"] = True  # captured graphs and compiled code ignore hooks
        environment: dict[str, str] = {}
        ray = options.get("distributed_executor_backend") == "ray"
        if self._device.type == "cuda" and not ray:
            each = options.get("tensor_parallel_size", 1) * options.get("pipeline_parallel_size", 1)
            environment["CUDA_VISIBLE_DEVICES"] = visible_devices(self._device.index or 0, each)
        rank_zero_info(f"vLLM {self.version} starts and loads {self.remote_model.path}")
        self._process, self._steers, self._steering = VllmProcess(settings.interpreter, environment), steers, None
        self._process.send({"options": options, "adapter": self.remote_model.adapter})
        self._process.receive()


def engine_options(settings: GenerationSettings) -> dict[str, Any]:
    """Options of vLLM that may change completions, for records: not where and with how much memory it runs."""
    return {name: value for name, value in settings.vllm.options.items() if name not in PLACEMENT}
