"""Difference in means in one pass: exact, in constant memory, over processes, and leaving nothing behind."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from datamodules.errors import InputError
from llm_modules.s3cot.accumulator import DirectionAccumulator
from llm_modules.s3cot.direction import Direction

L, H = 3, 16


def pairs(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """States whose differences share a direction, more so in later layers."""
    g = torch.Generator().manual_seed(seed)
    shared = torch.randn(L, H, generator=g) * torch.tensor([0.1, 1.0, 3.0])[:, None]
    negative = torch.randn(n, L, H, generator=g) * 5
    return negative + shared + torch.randn(n, L, H, generator=g), negative


def by_hand(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean difference, and mean and variance of the cosines to it, from all states at once."""
    difference = positive.double() - negative.double()
    mean = difference.mean(dim=0)
    cosine = torch.cosine_similarity(difference, mean[None], dim=2)
    return mean, cosine.mean(dim=0), cosine.var(dim=0, unbiased=False)


def assert_is(direction: Direction, positive: Tensor, negative: Tensor) -> None:
    mean, cosine, variance = by_hand(positive, negative)
    torch.testing.assert_close(direction.vectors, mean.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.tensor(direction.cosine).double(), cosine, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.tensor(direction.cosine_variance).double(), variance, rtol=1e-5, atol=1e-7)
    assert direction.n == len(positive)


@pytest.mark.parametrize("batch", [1, 7, 50])
def test_is_the_difference_in_means_whatever_the_batches(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_modules.s3cot.accumulator.BLOCK_BYTES", 4 * L * H * 8)
    positive, negative = pairs(50)
    with DirectionAccumulator(L, H) as accumulator:
        for start in range(0, 50, batch):
            accumulator.update(positive[start : start + batch], negative[start : start + batch])
        direction = accumulator.finish(consistency=0.6, model="m", positive="long", negative="short")
    assert_is(direction, positive, negative)
    assert direction.anchor == 1
    assert (direction.model, direction.positive, direction.negative) == ("m", "long", "short")


def test_points_from_negative_to_positive_at_its_own_scale() -> None:
    with DirectionAccumulator(1, 2) as accumulator:
        accumulator.update(torch.tensor([[[5.0, 0.0]], [[7.0, 0.0]]]), torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]]))
        assert torch.equal(accumulator.finish().vectors, torch.tensor([[5.0, 0.0]]))


def test_keeps_a_small_difference_of_half_precision_states_exactly() -> None:
    """Summed in bfloat16 it would be lost after a few hundred pairs."""
    positive, negative = torch.full((512, 1, 4), 256.0), torch.full((512, 1, 4), 254.0)
    with DirectionAccumulator(1, 4) as accumulator:
        for _ in range(8):
            accumulator.update(positive.bfloat16(), negative.bfloat16())
        assert torch.equal(accumulator.finish().vectors, torch.full((1, 4), 2.0))


def resident() -> int:
    """Bytes of memory that this process holds now."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("the memory of a process is read from /proc")
    return int(statm.read_text().split()[1]) * 4096


def test_memory_does_not_grow_with_the_number_of_pairs() -> None:
    states = torch.randn(16, 16, 2048)
    with DirectionAccumulator(16, 2048) as accumulator:
        accumulator.update(states, -states)
        before, most = resident(), 0
        for _ in range(64):
            accumulator.update(states, -states)
            most = max(most, resident() - before)
        for _block in accumulator._spooled():
            most = max(most, resident() - before)
        accumulator.finish()
    taken_in = 64 * states.numel() * 4
    assert taken_in == 128 * 2**20
    assert most < taken_in / 4


def test_the_spool_is_gone_after_success_and_after_errors(tmp_path: Path) -> None:
    positive, negative = pairs(4)
    with DirectionAccumulator(L, H, spool_dir=tmp_path) as accumulator:
        accumulator.update(positive, negative)
        accumulator.finish()
    with pytest.raises(InputError), DirectionAccumulator(L, H, spool_dir=tmp_path) as accumulator:
        accumulator.update(positive / 0, negative)
    accumulator.close()
    assert list(tmp_path.iterdir()) == []


def test_refuses_what_gives_no_direction() -> None:
    positive, negative = pairs(4)
    with DirectionAccumulator(L, H) as accumulator:
        with pytest.raises(InputError, match="no contrast pairs"):
            accumulator.finish()
        accumulator.update(positive, positive)
        with pytest.raises(InputError, match="give two prompts that differ"):
            accumulator.finish()
        with pytest.raises(ValueError, match="expected"):
            accumulator.update(positive[:, :, :2], negative[:, :, :2])
        overflown = positive.clone()
        overflown[1, 2, 3] = float("inf")
        with pytest.raises(InputError, match=r"layer 2 .*bfloat16"):
            accumulator.update(overflown, negative)


def _one_of_two(rank: int, rendezvous: str, output: Path) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=2)
    positive, negative = pairs(11)
    with DirectionAccumulator(L, H) as accumulator:
        accumulator.update(positive[rank::2], negative[rank::2])
        accumulator.finish().save(output / f"{rank}.safetensors")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    multiprocessing.spawn(_one_of_two, (str(tmp_path / "rendezvous"), tmp_path), nprocs=2)
    files = [tmp_path / f"{rank}.safetensors" for rank in (0, 1)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert_is(Direction.load(files[0]), *pairs(11))
