"""Steering: every row of a batch has its own strength in every layer (paper, "self-sampling")."""

from collections.abc import Hashable, Sequence
from contextlib import ExitStack
from functools import partial
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import Cache

from datamodules.errors import InputError
from llm_modules.backbone.architecture import (
    check_vectors,
    decoder_layers,
    inner_decoder,
    residual_of,
    uncompiled,
    with_residual,
)
from llm_modules.generation import GenerationListener, Steered
from llm_modules.generation.prefill import cache_in, is_empty, takes_cache
from llm_modules.s3cot.steered_places import SteeredPlaces

Positions = Literal["all", "prompt", "last", "generated"]
"""Tokens that are steered: all (paper), those of the prompt, the prompt's last one (where the direction is measured),
or the generated ones. All but the first are ours."""


class Steering(GenerationListener):
    """Adds ``strength[row, layer] * vectors[layer]`` to the output of each decoder layer, within a ``with`` block.

    It works with any caller of the model. In a plain ``model.generate`` the rows of the batch are the rows of the
    strengths. A `Generator` that has this object among its listeners tells it which rows each pass computes.

    Only layers that some row steers get a forward hook, and all hooks are removed at the end of the block, also on
    error. A row of strength 0 gets the same bits as without steering. Code compiled by ``torch.compile`` runs
    uncompiled within the block, because compiled code ignores hooks. `steered` tells how many tokens of a row were
    steered in how many layers, as counted in the hooks themselves, and the relative size of what was added.

    Example:
        >>> from llm_modules.backbone.loading import load_model
        >>> model, prompts = load_model("miniature").eval(), torch.tensor([[1, 972, 201], [1, 972, 201]])
        >>> vectors = torch.ones(model.config.num_hidden_layers, model.config.hidden_size)
        >>> with torch.no_grad(), Steering(model, vectors) as steering:
        ...     steering.set_strengths(torch.tensor([0.0, -0.1]))
        ...     steered = model(prompts).logits
        >>> [torch.equal(row, plain) for row, plain in zip(steered, model(prompts).logits)]
        [True, False]
    """

    def __init__(self, model: nn.Module, vectors: Tensor, positions: Positions = "all") -> None:
        """Prepare; hooks are attached when the block starts.

        Args:
            model: A causal language model, bare or wrapped.
            vectors: (layers, hidden), kept in float32.
            positions: ``prompt`` steers the pass that starts with an empty KV cache, ``last`` only the last column of
                that pass (prompts are left-padded), ``generated`` the passes after it.

        Raises:
            InputError: The vectors do not fit the model.
        """
        check_vectors(model, vectors)
        self._layers = decoder_layers(model)
        self._decoder = inner_decoder(model)
        self._vectors = vectors.detach().float()
        self._positions = positions
        self._stack: ExitStack | None = None
        self._hooked: set[int] = set()
        # Of the current pass: first and last column to steer (as a slice), and which columns are tokens.
        self._columns: slice | None = slice(None)
        self._is_token: Tensor | None = None
        self._width: int | None = None
        self._takes = takes_cache(self._decoder.forward)
        # Of prompts that are read in two passes: which columns of the coming passes are steered.
        self._parts: list[slice | None] = []
        # Per batch: the distinct settings (strengths by layer), the setting of each row, the layers steered by any.
        self._settings = torch.empty(0, len(self._layers))
        self._setting_of_row = torch.empty(0, dtype=torch.long)
        self._steered: list[int] = []
        self._products: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        self._places = SteeredPlaces(0)
        # Per pass: its rows, their settings, and the tensor to add to each layer.
        self._rows: Tensor | None = None
        self._chosen = self._setting_of_row
        self._addends: dict[int, Tensor] = {}
        self._sizes: dict[int, Tensor] = {}
        self._idle = True

    def __enter__(self) -> "Steering":
        if self._stack is not None:
            raise RuntimeError("this steering is already attached")
        self._stack = ExitStack()
        self._stack.enter_context(uncompiled())
        hook = self._decoder.register_forward_pre_hook(self._find_columns, with_kwargs=True)
        self._stack.callback(hook.remove)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        if self._stack is not None:
            self._stack.close()
        self._stack = self._width = None
        self._hooked.clear()
        self._use(torch.empty(0, len(self._layers)))

    def set_strengths(self, strengths: Tensor) -> None:
        """Set the strengths of a batch, (batch,) for all layers or (batch, layers), until they are set again.

        InputError if a strength is not finite, or the shape does not fit the model.
        """
        if self._stack is None:
            raise RuntimeError("set strengths within the 'with' block of the steering")
        strengths = strengths.detach().to("cpu", torch.float32)
        if strengths.ndim == 1:
            strengths = strengths[:, None].expand(-1, len(self._layers))
        if strengths.ndim != 2 or strengths.shape[1] != len(self._layers):
            raise InputError(
                f"alpha: strengths of shape {tuple(strengths.shape)} for a model of {len(self._layers)} layers; "
                "give shape (rows,) or (rows, layers)"
            )
        bad = (~torch.isfinite(strengths)).any(dim=1).nonzero().flatten().tolist()
        if bad:
            raise InputError(f"alpha: the strength of row {bad[0]} is not a finite number")
        self._use(strengths)
        for layer in self._steered:
            if layer not in self._hooked:
                hook = self._layers[layer].register_forward_hook(partial(self._add, layer))
                self._stack.callback(hook.remove)
                self._hooked.add(layer)

    def batch_starts(self, width: int) -> None:
        """Note where the prompts end: models that take no cache compute them in each pass again."""
        self._width = width

    def steered(self, row: int) -> Steered:
        """How many tokens x layers of a row of the strengths were steered since they were set, and by how much."""
        return self._places.of(row)

    def rows_begin_again(self, rows: Sequence[int]) -> None:
        """Count these rows from 0."""
        self._parts = []  # of a pass that has failed
        self._places.forget(rows)

    def reads_alike(self, row: int) -> Hashable:
        """The row's strengths, if they change what is kept of tokens before the prompt's last one."""
        within = self._positions in ("all", "prompt") and len(self._setting_of_row)
        return int(self._setting_of_row[row]) if within else None

    def before_shared_prompts(self, rows: Tensor, readers: Tensor) -> None:
        """Steer two passes as if they were one."""
        before_last = slice(None) if self._positions in ("all", "prompt") else None
        last = None if self._positions == "generated" else slice(None)
        self._parts = [before_last, last]
        self._places.shared_pass(rows, readers)

    def before_forward(self, rows: Tensor) -> None:
        """Steer the coming passes for these rows of the batch; an empty tensor means a pass that belongs to no row."""
        if rows is self._rows or not len(self._setting_of_row):
            return
        self._rows = rows
        self._take(self._setting_of_row[rows.cpu()])

    def _use(self, strengths: Tensor) -> None:
        # Rows share a few settings: strengths are multiplied with vectors once per setting, not once per row.
        self._settings, self._setting_of_row = torch.unique(strengths, dim=0, return_inverse=True)
        self._steered = self._settings.any(dim=0).nonzero().flatten().tolist()
        self._products.clear()
        self._rows, self._parts = None, []
        self._places = SteeredPlaces(len(strengths))
        self._take(self._setting_of_row)

    def _take(self, chosen: Tensor) -> None:
        """Choose the setting of each row of the coming pass; the tensors to add are looked up when it runs."""
        self._chosen = chosen
        self._idle = not self._settings[chosen].any()
        self._addends.clear()

    def _find_columns(self, _decoder: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Find the columns of the coming pass that are steered, and those that are tokens."""
        named = (kwargs.get(name) for name in ("input_ids", "inputs_embeds"))
        inputs = next((value for value in (*named, *args) if isinstance(value, Tensor)), None)
        mask = kwargs.get("attention_mask")
        self._is_token = None
        if isinstance(mask, Tensor) and inputs is not None and mask.ndim == 2:
            self._is_token = mask[:, -inputs.shape[1] :]
        if self._parts:
            self._columns = self._parts.pop(0)
        elif not self._takes:
            self._columns = self._of_whole_rows()
        elif self._positions == "all":
            self._columns = slice(None)
        else:
            prompt = self._reads_prompt(kwargs)
            here = prompt == (self._positions != "generated")
            self._columns = slice(-1 if self._positions == "last" else None, None) if here else None
        rows = torch.arange(len(self._chosen)) if self._rows is None else self._rows
        self._places.next_pass(rows, again=not self._takes)

    def _of_whole_rows(self) -> slice:
        """The columns to steer in a pass that computes each row from its first token."""
        if self._positions == "all":
            return slice(None)
        if self._width is None:
            raise InputError(
                f"positions: '{self._positions}' needs to know where the prompts end, and the model takes no cache to "
                "tell it by; use model.generation.engine: transformers, or steer 'all' positions"
            )
        ends = {"prompt": (None, self._width), "last": (self._width - 1, self._width), "generated": (self._width, None)}
        return slice(*ends[self._positions])

    def _reads_prompt(self, kwargs: dict[str, Any]) -> bool:
        cache = cache_in(kwargs)
        use_cache = kwargs.get("use_cache")
        if use_cache is None:
            use_cache = getattr(self._decoder.config, "use_cache", True)
        if cache is None and not use_cache:
            raise InputError(
                f"positions: '{self._positions}' needs a KV cache to find the prompt, and the model runs without one; "
                "generate with use_cache=True or steer 'all' positions"
            )
        return cache is None or (isinstance(cache, Cache) and is_empty(cache))

    def _add(self, layer: int, _module: nn.Module, _args: Any, output: Any) -> Any:
        """Forward hook of a decoder layer; its output is (batch, seq, hidden), or a tuple that begins with it."""
        if self._idle or self._columns is None:
            return None
        hidden: Tensor = residual_of(output)
        if hidden.ndim != 3 or hidden.shape[-1] != self._vectors.shape[-1]:
            raise InputError(
                f"steering: the decoder layers of this family return {tuple(hidden.shape)}, several residual streams "
                "per token; a direction is defined for one, so the family cannot be steered"
            )
        addend = self._addends.get(layer)
        if addend is None or addend.dtype != hidden.dtype or addend.device != hidden.device:
            addend = self._look_up(layer, hidden)
        if len(hidden) != len(addend):
            raise InputError(
                f"alpha: a forward pass of {len(hidden)} rows has strengths for {len(addend)}; give every row of the "
                "pass its own (beams and num_return_sequences multiply the rows)"
            )
        columns = self._columns
        is_token = None if self._is_token is None else self._is_token[:, columns]
        self._places.add(hidden[:, columns], self._sizes[layer], is_token)
        if columns == slice(None):
            steered = hidden + addend
        else:
            steered = hidden.clone()
            steered[:, columns] += addend
        return with_residual(output, steered)

    def _look_up(self, layer: int, hidden: Tensor) -> Tensor:
        """Return what this pass adds to a layer, (batch, 1, hidden), on the device and in the dtype of ``hidden``."""
        key = (hidden.device, hidden.dtype)
        if key not in self._products:
            self._products[key] = self._multiply(hidden)
        chosen = self._products[key].index_select(1, self._chosen.to(hidden.device))
        self._addends.update(zip(self._steered, chosen.unbind(), strict=True))
        self._sizes.update(zip(self._steered, chosen.float().norm(dim=-1).unbind(), strict=True))
        return self._addends[layer]

    def _multiply(self, hidden: Tensor) -> Tensor:
        """Return strength times vector, computed in float32 and rounded once: (steered layers, settings, 1, hidden)."""
        strengths = self._settings[:, self._steered].T[:, :, None, None]
        product = strengths * self._vectors[self._steered].cpu()[:, None, None, :]
        # x + (-0.0) has the bits of x for every x; x + 0.0 would turn -0.0 into 0.0.
        return torch.where(strengths == 0, -0.0, product).to(hidden.device, hidden.dtype)
