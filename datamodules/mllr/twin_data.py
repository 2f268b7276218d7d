"""Malicious requests with benign near-twins, on which the security probe is fitted."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from datamodules.errors import InputError
from datamodules.mllr.records import Twins
from datamodules.prompts.contrast_data import ContrastData, ContrastPair
from datamodules.records.questions import part_of
from datamodules.records.reader import read_records
from datamodules.records.same_text import linked, squeeze
from datamodules.records.validation import text_fields
from datamodules.trainer_parts import run_folder


class TwinData(ContrastData):
    """Pairs of a malicious request (the positive side) and its benign twin, for the search for robust modules.

    Texts that results are measured on must not occur in the pairs: name their files in ``evaluation``, and the run
    stops if one does.
    """

    def __init__(
        self,
        pairs: Path,
        evaluation: list[Path] | None = None,
        drop_overlap: bool = False,
        fields: dict[str, str] | None = None,
        offset: int = 0,
        limit: int = 400,
        batch_size: int = 32,
        chat_template: str | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Keep the settings; ``setup`` reads the files.

        Args:
            pairs: JSONL file with ``malicious`` and ``benign`` in each line; ``rod make-twins`` writes such files.
            evaluation: JSONL files of test prompts, compared in all text fields.
            drop_overlap: Leave out pairs with a text in these files and report their number, instead of stopping.
            fields: Names of our fields to those of the file, if they differ.
            offset: Pairs to skip at the beginning.
            limit: Pairs to use.
            batch_size: Prompts in a forward pass.
            chat_template: ``plain`` or a jinja file, in place of the tokenizer's own template.
            chat_template_kwargs: Arguments of the template, such as ``{enable_thinking: false}``; see `ChatTemplate`.
        """
        super().__init__(
            contrast_file=pairs,
            fields=fields,
            offset=offset,
            limit=limit,
            batch_size=batch_size,
            chat_template=chat_template,
            chat_template_kwargs=chat_template_kwargs,
        )
        self.pairs_file = pairs
        self.evaluation = evaluation or []
        self.drop_overlap = drop_overlap

    def _read(self) -> list[ContrastPair]:
        records = read_records(
            self.pairs_file, Twins, fields=self.fields, rejected_dir=run_folder(self), key="data.fields"
        )
        if self.drop_overlap:
            tested = {squeeze(text) for path in self.evaluation for line in text_fields(path) for text in line}
            apart = [twin for twin in records if not {squeeze(twin.malicious), squeeze(twin.benign)} & tested]
            rank_zero_info(f"{self.pairs_file}: {len(records) - len(apart)} pairs left out because they are tested on")
            records = apart
        records = part_of(self.pairs_file, records, self.offset, self.limit)
        same = [twin.id for twin in records if squeeze(twin.malicious) == squeeze(twin.benign)]
        if same:
            raise InputError(
                f"{self.pairs_file}: {len(same)} pairs have the same text on both sides (such as {same[0]}); there "
                "would be one class of prompts only"
            )
        texts = (text for twin in records for text in (twin.malicious, twin.benign))
        check_apart(self.pairs_file, texts, self.evaluation)
        return [ContrastPair(twin.id, twin.malicious, twin.benign) for twin in records]


def check_apart(source: Path, texts: Iterable[str], evaluation: Sequence[Path]) -> None:
    """Raise ``InputError`` if data and evaluation files share a text; case and white space are ignored."""
    known = {squeeze(text) for text in texts}
    for path in evaluation:
        found = [text for line in text_fields(path) for text in line if squeeze(text) in known]
        if found:
            raise InputError(
                f"{source}: {len(set(found))} of its texts also stand in the evaluation file {path} (such as "
                f"{found[0]!r}), so the evaluation would not be held out: remove them from one of the two, or set "
                "data.drop_overlap"
            )
    if evaluation:
        rank_zero_info(f"{source}: no text in common with {', '.join(map(str, evaluation))}")


def families(pairs: Sequence[ContrastPair]) -> list[int]:
    """Number of each pair's family: pairs that share a text, directly or through other pairs.

    A split must keep families together, or a text would be in two of its parts.
    """
    first: dict[str, int] = {}
    texts = ((index, squeeze(text)) for index, pair in enumerate(pairs) for text in (pair.positive, pair.negative))
    return linked(len(pairs), ((index, first.setdefault(text, index)) for index, text in texts))
