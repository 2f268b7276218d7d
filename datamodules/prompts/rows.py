"""The rows of a generation run: every question by system, steering strength, layer set and sample."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from datamodules.batch import PromptBatch, PromptRow
from datamodules.errors import InputError
from datamodules.prompts.chat_template import ChatTemplate, encode_prompt, render_prompt, user_turn
from datamodules.records.kinds import Question, System


def build_rows(
    questions: Iterable[Question],
    tokenizer: PreTrainedTokenizerBase,
    *,
    systems: Sequence[System] = ("system2",),
    alphas: Sequence[float] = (0.0,),
    layer_sets: Sequence[str] = ("",),
    samples: int = 1,
    seed: int = 0,
    chat_template: ChatTemplate | None = None,
) -> list[PromptRow]:
    """Build one row for each question, system, strength, layer set and sample, question by question.

    Strength 0 steers nothing: it gives one row for each question, system and sample, whatever the layer sets. A row's
    seed depends on ``seed``, question and sample alone, so all strengths share their random numbers. Arguments as in
    `PromptData`. InputError if a strength is not finite, a list is empty, or two rows have the same id.
    """
    for alpha in alphas:
        if not math.isfinite(alpha):
            raise InputError(f"data.alphas: {alpha} is not a strength; give finite numbers such as -0.2")
    if not systems or not alphas or not layer_sets or samples < 1:
        raise InputError("data: systems, alphas and layer_sets need at least one entry, samples must be 1 or more")
    template = chat_template or ChatTemplate()
    conditions = [(0.0, "")] if 0 in alphas else []
    conditions += [(float(alpha), layer_set) for layer_set in layer_sets for alpha in alphas if alpha != 0]
    rows = []
    for question in questions:
        for system in systems:
            own = template.of(system)
            try:
                prompt = render_prompt(
                    tokenizer, user_turn(question.question, system), earlier=question.earlier, template=own
                )
            except InputError as error:
                raise InputError(f"'{question.id}': {error}" if question.earlier else str(error)) from error
            token_ids = tuple(encode_prompt(tokenizer, prompt))
            for alpha, layer_set in conditions:
                rows += [
                    PromptRow(
                        id=f"{question.id}|{system}|{layer_set or '-'}|a{alpha:g}|s{sample}",
                        question=question,
                        system=system,
                        prompt=prompt,
                        token_ids=token_ids,
                        seed=stable_seed(seed, question.id, sample),
                        sample=sample,
                        alpha=alpha,
                        layer_set=layer_set,
                        chat_template_kwargs=own.kwargs,
                    )
                    for sample in range(samples)
                ]
    twice = [identifier for identifier, count in Counter(row.id for row in rows).items() if count > 1]
    if twice:
        raise InputError(f"data: the row '{twice[0]}' occurs twice; ids, systems, alphas and layer_sets must differ")
    return rows


def stable_seed(seed: int, question_id: str, sample: int) -> int:
    """Return a non-negative seed of 63 bits, the same in every process and on every machine.

    >>> stable_seed(0, "gsm8k-1", 0) == stable_seed(0, "gsm8k-1", 0) != stable_seed(0, "gsm8k-1", 1)
    True
    """
    digest = hashlib.blake2b(f"{seed}|{question_id}|{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class PromptBatches:
    """One process's rows in batches for the generator; what a dataloader method returns.

    Questions are dealt out to the processes in turn. A question's rows stay in one batch, so all its strengths run
    together. Every process gets the same number of batches, as sharded models need: a process without rows left gets
    empty batches. There is at least one batch, so the hooks of a run are called even if nothing is left to do.
    """

    def __init__(
        self, rows: Iterable[PromptRow], *, rows_per_batch: int = 256, rank: int = 0, world_size: int = 1
    ) -> None:
        """Deal out the rows of all processes, at most ``rows_per_batch`` in a batch unless one question has more."""
        questions: dict[str, list[PromptRow]] = {}
        for row in rows:
            questions.setdefault(row.question.id, []).append(row)
        groups = list(questions.values())
        shares = [_fill(groups[start::world_size], rows_per_batch) for start in range(world_size)]
        longest = max(1, *(len(share) for share in shares))
        self.batches = [PromptBatch(share) for share in shares[rank]]
        self.batches += [PromptBatch(())] * (longest - len(self.batches))

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[PromptBatch]:
        return iter(self.batches)


def _fill(questions: Sequence[list[PromptRow]], rows_per_batch: int) -> list[list[PromptRow]]:
    """Put whole questions into batches of at most ``rows_per_batch`` rows, or of a single question."""
    batches: list[list[PromptRow]] = []
    for rows in questions:
        if not batches or len(batches[-1]) + len(rows) > rows_per_batch:
            batches.append([])
        batches[-1] += rows
    return batches
