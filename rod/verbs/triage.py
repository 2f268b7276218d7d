"""``rod triage``: rank the samples of a fine-tuning set by how malicious they look to the model."""

import logging
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from datamodules.mllr.records import Twins
    from datamodules.prompts.chat_template import ChatTemplate
    from datamodules.prompts.conversation import ConversationEncoder
    from datamodules.records.conversations import Conversation
    from llm_modules.causal_lm import CausalLM
    from llm_modules.safety_watch.triage import RefusalAxis

_log = logging.getLogger(__name__)
_FILES = ("kept.jsonl", "dropped.jsonl", "scores.csv")


def run(
    path: Path,
    pairs: Path,
    model: str,
    output: Path,
    drop: float = 0.1,
    at: Literal["response", "prompt"] = "response",
    fields: dict[str, str] | None = None,
    limit: int = 200,
    floor: float = 0.9,
    chat_template: str | None = None,
    chat_template_kwargs: dict[str, Any] | None = None,
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Rank the samples of a fine-tuning set by how malicious they look to the model, and drop the worst.

    In the layer that tells malicious requests from their benign twins best, a line goes through the mean hidden states
    of both. A sample's score is its place on it: 0 where benign requests are, 1 where malicious ones are. The method is
    ours, after the idea of DataShield (arXiv 2606.00160).

    Writes to the folder ``output``: ``kept.jsonl``, the samples that are left, in their order with all their
    fields; ``dropped.jsonl``, the others, the worst first; ``scores.csv``, the score of each. Samples that the template
    cannot render, or the model has too few positions for, are in none of them, and counted.

    Args:
        path: The fine-tuning set, in any form that `InstructionData` reads.
        pairs: JSONL file of malicious requests with benign twins, as `rod make-twins` writes them.
        model: The model to be tuned: hub id, folder or miniature.
        output: The folder to write.
        drop: Share of the samples to drop, from 0 to 1.
        at: Read the state at the end of the ``response``, or of the ``prompt``.
        fields: The file's names of the parts of a sample, as in ``data.fields``.
        limit: Number of pairs.
        floor: Least AUROC on held-out pairs; with less, the model does not tell the requests apart.
        chat_template: ``plain`` or a jinja file, instead of the tokenizer's own template.
        chat_template_kwargs: Arguments of the template, such as ``{enable_thinking: false}``; see `ChatTemplate`.
        device: Such as ``cpu`` or ``cuda:1``; a GPU if there is one by default.
        overwrite: Overwrite existing files.
    """
    from rich.console import Console
    from rich.progress import track

    from datamodules.errors import InputError
    from datamodules.mllr.records import Twins
    from datamodules.prompts.chat_template import ChatTemplate
    from datamodules.prompts.conversation import ConversationEncoder
    from datamodules.records.conversations import read_conversations
    from datamodules.records.reader import read_records
    from llm_modules.backbone.device import choose_device
    from llm_modules.causal_lm import CausalLM
    from llm_modules.safety_watch.triage import BATCH_SIZE, last_states
    from rod.files import require_new

    if not 0 <= drop < 1:
        raise InputError(f"--drop: must be a share from 0 to less than 1, is {drop:g}")
    require_new([output / name for name in _FILES], overwrite)
    place = choose_device(device)
    twins = read_records(pairs, Twins)[:limit]
    conversations = read_conversations(path, fields=fields, key="--fields")
    module = CausalLM(model, dtype="auto")
    template = ChatTemplate(chat_template, chat_template_kwargs or {}).of("plain")
    encode = ConversationEncoder(module.tokenizer, template, loss_turns="last")
    rows = _rows(path, conversations, encode, at, module.max_positions)
    module.configure_model()
    module.eval().to(place)
    axis = _fit_axis(module, twins, template)
    if axis.auroc < floor:
        raise InputError(
            f"--pairs: the model tells malicious requests from their twins with an AUROC of {axis.auroc:.3f} in its "
            f"best layer, less than {floor:g}: a score would say little; give clearer pairs, or lower --floor knowingly"
        )
    numbers, scores = [*rows], dict[int, float]()
    batches = last_states(module.language_model, [*rows.values()], module.pad_id)
    for chosen, states in track(batches, "Reading", total=-(-len(rows) // BATCH_SIZE), console=Console(stderr=True)):
        scored = zip(chosen, axis.score(states).tolist(), strict=True)
        scores.update((numbers[row], score) for row, score in scored)
    worst = sorted(scores, key=lambda number: (-scores[number], number))[: round(drop * len(scores))]
    lines = _lines(path, rows)
    _write(output, lines, scores, worst)
    console = Console()
    spread = f"scores from {min(scores.values()):.2f} to {max(scores.values()):.2f}"
    told = f"layer {axis.layer}, AUROC {axis.auroc:.3f} on held-out pairs; {spread}"
    console.print(
        f"{told}; kept {len(lines) - len(worst):,} of {len(lines):,} samples", highlight=False, soft_wrap=True
    )
    for number in worst[:3]:
        console.print(f"  {scores[number]:.2f}  line {number}: {lines[number][:100]}", highlight=False, markup=False)
    console.print(f"wrote {output / _FILES[0]}", highlight=False, soft_wrap=True)


def _fit_axis(module: "CausalLM", twins: Sequence["Twins"], template: "ChatTemplate") -> "RefusalAxis":
    from datamodules.prompts import encode_prompt, render_prompt
    from llm_modules.safety_watch.triage import RefusalAxis

    def states(texts: list[str]) -> "Tensor":
        prompts = [render_prompt(module.tokenizer, text, template=template) for text in texts]
        return _states(module, [encode_prompt(module.tokenizer, prompt) for prompt in prompts])

    return RefusalAxis.fit(states([pair.malicious for pair in twins]), states([pair.benign for pair in twins]))


def _lines(path: Path, numbers: Container[int]) -> dict[int, str]:
    """The lines of the file with these numbers, as JSON that UTF-8 can hold."""
    import json

    from datamodules.records.files import read_file
    from datamodules.records.reader import HALVES

    found = (line for line in read_file(path, lambda _: None) if line.number in numbers)
    texts = {line.number: json.dumps(line.values, ensure_ascii=False, default=str) for line in found}
    return {number: text.encode("utf-8", HALVES).decode() for number, text in texts.items()}


def _write(output: Path, lines: Mapping[int, str], scores: Mapping[int, float], worst: Sequence[int]) -> None:
    import csv

    from datamodules.writing import filling

    dropped = set(worst)
    with filling(output) as folder:
        for name, chosen in zip(_FILES, ([n for n in lines if n not in dropped], worst), strict=False):
            (folder / name).write_text("".join(f"{lines[number]}\n" for number in chosen), encoding="utf-8")
        with (folder / _FILES[2]).open("w", newline="", encoding="utf-8") as table:
            writer = csv.writer(table)
            writer.writerow(["line", "score", "kept"])
            writer.writerows([number, f"{scores[number]:.4f}", number not in dropped] for number in sorted(scores))


def _rows(
    path: Path, conversations: Sequence["Conversation"], encode: "ConversationEncoder", at: str, most: int | None
) -> dict[int, list[int]]:
    """The tokens to read of each sample, by its line; warnings count those that cannot be read.

    InputError if none can.
    """
    from datamodules.errors import InputError

    rows: dict[int, list[int]] = {}
    refused: list[str] = []
    too_long: list[str] = []
    for conversation in conversations:
        try:
            row = _upto(encode(conversation)[-1], at)
        except InputError as error:
            refused.append(f"{conversation.where}: {error}")
            continue
        if most is None or len(row) <= most:
            rows[conversation.number] = row
        else:
            too_long.append(f"{conversation.where}: {len(row):,} tokens, but the model has {most:,} positions")
    if not rows:
        raise InputError((refused + too_long)[0])
    for why, left_out in (("that cannot be rendered", refused), ("that are too long", too_long)):
        if left_out:
            n, of = len(left_out), len(conversations)
            _log.warning("%s: left out %d of %d samples %s, such as %s", path, n, of, why, left_out[0])
    return rows


def _upto(example: tuple[list[int], list[int]], at: str) -> list[int]:
    """The tokens of an example up to the end of its last response, or of the prompt before it."""
    from datamodules.batch import IGNORE_INDEX

    ids, labels = example
    learnt = [place for place, label in enumerate(labels) if label != IGNORE_INDEX]
    return ids[: learnt[-1] + 1] if at == "response" else ids[: learnt[0]]


def _states(module: "CausalLM", rows: Sequence[Sequence[int]]) -> "Tensor":
    """States of rows, in their order."""
    import torch

    from llm_modules.safety_watch.triage import last_states

    found: dict[int, Tensor] = {}
    for chosen, states in last_states(module.language_model, rows, module.pad_id):
        found.update(zip(chosen, states, strict=True))
    return torch.stack([found[row] for row in range(len(rows))])
