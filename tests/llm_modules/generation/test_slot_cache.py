"""The slot cache against a plain record of what each row was given."""

import torch
from torch import Tensor
from transformers import DynamicCache

from llm_modules.generation.prefill import left_pad
from llm_modules.generation.slot_cache import SlotCache

LAYERS, HEADS, WIDTH = 2, 3, 4


def states(rows: int, seq: int) -> tuple[Tensor, Tensor]:
    """Keys and values that never occur twice; the values are wider, as in some models."""
    return torch.randn(rows, HEADS, seq, WIDTH), torch.randn(rows, HEADS, seq, WIDTH + 2)


class Record:
    """A cache and, beside it, each row's own keys and values."""

    def __init__(self, slots: int) -> None:
        self.cache = SlotCache(slots)
        self.rows: list[list[tuple[Tensor, Tensor]]] = []

    def append(self, lengths: list[int]) -> None:
        prefilled = DynamicCache()
        new: list[list[tuple[Tensor, Tensor]]] = [[] for _ in lengths]
        for layer in range(LAYERS):
            keys, values = states(len(lengths), max(lengths))
            prefilled.update(keys, values, layer)
            for row, length in enumerate(lengths):
                new[row].append((keys[row, :, -length:], values[row, :, -length:]))
        self.cache.append(prefilled, lengths)
        self.rows += new

    def drop(self, rows: list[int]) -> None:
        moves = self.cache.drop(rows)
        for source, target in moves:
            self.rows[target] = self.rows[source]
        del self.rows[len(self.rows) - len(rows) :]

    def step(self) -> None:
        """One pass of one token a row, and all that it gets back checked."""
        mask = self.cache.mask()
        longest = max(keys.shape[1] for (keys, _), *_ in self.rows) + 1
        assert mask.shape == (len(self.rows), longest), "columns that are padding in all rows are trimmed"
        for layer in range(LAYERS):
            assert self.cache.get_mask_sizes(1, layer) == (longest, 0)
            new_keys, new_values = states(len(self.rows), 1)
            keys, values = self.cache.update(new_keys, new_values, layer)
            assert keys.isfinite().all()
            assert values.isfinite().all()
            for row, own in enumerate(self.rows):
                own[layer] = (
                    torch.cat([own[layer][0], new_keys[row]], 1),
                    torch.cat([own[layer][1], new_values[row]], 1),
                )
                assert torch.equal(keys[row][:, mask[row]], own[layer][0])
                assert torch.equal(values[row][:, mask[row]], own[layer][1])
        assert self.cache.get_seq_length() == longest


def test_rows_keep_their_own_while_others_come_and_go() -> None:
    record = Record(slots=5)
    record.append([9, 4, 6])
    for _ in range(3):
        record.step()
    record.append([2])
    record.step()
    record.drop([0, 2])  # the longest goes: trimmed on the left, two rows move or stay
    record.step()
    record.append([30, 12])  # longer than all that is there
    record.step()
    for _ in range(150):  # outgrows its room, more than once
        record.step()
    record.drop([0])
    record.append([1, 1])
    record.step()
    record.drop(list(range(len(record.rows))))
    record.append([7])
    record.step()


def test_a_pass_copies_nothing_but_its_own_column() -> None:
    record = Record(slots=2)
    record.append([5, 5])
    before = record.cache.update(*states(2, 1), 0)[0]
    assert record.cache.update(*states(2, 1), 0)[0].data_ptr() == before.data_ptr()


def test_left_pad_aligns_the_last_tokens() -> None:
    ids, mask, positions = left_pad([[5, 6, 7], [8]], pad_id=0)
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[True] * 3, [False, False, True]]
    assert positions.tolist() == [[0, 1, 2], [0, 0, 0]]
