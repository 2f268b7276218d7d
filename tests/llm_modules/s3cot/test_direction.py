"""The direction's file, its checks, its anchor, and the states that it is made of."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from datamodules.errors import InputError
from llm_modules.backbone.architecture import inner_decoder
from llm_modules.backbone.states import ContrastStates, capture_last_token
from llm_modules.s3cot.direction import Direction, anchor_layer, random_like
from tests.architectures import ARCHITECTURES, HIDDEN, LAYERS

IDS = torch.tensor([[0, 0, 7, 8, 9], [3, 4, 5, 6, 7], [0, 0, 0, 0, 50]])
MASK = (IDS != 0).long()


def a_direction() -> Direction:
    return Direction(
        vectors=torch.randn(4, 8, generator=torch.Generator().manual_seed(0)),
        model="someone/some-model",
        revision="abc123",
        model_type="llama",
        positive="step by step, naïve → long",
        negative="brief",
        n=100,
        anchor=1,
        cosine=(0.1, 0.8, 0.9, 0.85),
        cosine_variance=(0.2, 0.01, 0.02, 0.03),
        notes="mean(long) - mean(short)",
    )


def test_round_trip_with_the_same_bytes_every_time(tmp_path: Path) -> None:
    first, again, copy = (tmp_path / "sub" / name for name in ("a.safetensors", "b.safetensors", "c.safetensors"))
    direction = a_direction()
    direction.save(first)
    direction.save(again)
    loaded = Direction.load(first)
    loaded.save(copy)
    assert first.read_bytes() == again.read_bytes() == copy.read_bytes()
    assert torch.equal(loaded.vectors, direction.vectors)
    for field in fields(Direction):
        if field.name not in {"vectors", "source"}:
            assert getattr(loaded, field.name) == getattr(direction, field.name)
    assert sorted(path.name for path in first.parent.iterdir()) == ["a.safetensors", "b.safetensors", "c.safetensors"]


def test_header_is_json_that_others_can_read(tmp_path: Path) -> None:
    a_direction().save(tmp_path / "d.safetensors")
    with safe_open(tmp_path / "d.safetensors", "pt") as file:
        header = json.loads(file.metadata()["direction"])
    assert header["separation"] == pytest.approx(a_direction().vectors.norm(dim=1).tolist())
    assert (header["model"], header["positive"], header["n"]) == (
        "someone/some-model",
        "step by step, naïve → long",
        100,
    )


def test_refuses_files_that_hold_no_direction(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent.safetensors: no direction can be read"):
        Direction.load(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors here")
    with pytest.raises(InputError, match=r"text.safetensors: no direction can be read"):
        Direction.load(tmp_path / "text.safetensors")
    save_file({"weight": torch.zeros(2, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"it holds 'weight' \(2, 3\)"):
        Direction.load(tmp_path / "other.safetensors")
    save_file({"vectors": torch.zeros(2, 3)}, tmp_path / "damaged.safetensors", {"direction": '{"model": "x"}'})
    with pytest.raises(InputError, match="damaged"):
        Direction.load(tmp_path / "damaged.safetensors")


def test_a_change_of_its_file_is_told_once(tmp_path: Path) -> None:
    a_direction().save(tmp_path / "direction.safetensors")
    content = (tmp_path / "direction.safetensors").read_bytes()
    (tmp_path / "direction.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=r"^[^:]*: the file is damaged \(its checksum differs\)"):
        Direction.load(tmp_path / "direction.safetensors")


def test_refuses_another_model(tmp_path: Path) -> None:
    direction = a_direction()
    direction.check(model_id="someone/some-model", layers=4, hidden=8)
    with pytest.raises(InputError, match="4 layers x 8 do not fit the model 'm' with 28 layers x 8"):
        direction.check(model_id="m", layers=28, hidden=8)
    with pytest.raises(InputError, match="4 layers x 8 do not fit"):
        direction.check(model_id="someone/some-model", layers=4, hidden=16, allow_other_model=True)
    with pytest.raises(InputError, match=r"'someone/some-model'.*'another/model'"):
        direction.check(model_id="another/model", layers=4, hidden=8)
    direction.check(model_id="another/model", layers=4, hidden=8, allow_other_model=True)
    replace(direction, model="").check(model_id="another/model", layers=4, hidden=8)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_refuses_vectors_that_are_not_finite(value: float, tmp_path: Path) -> None:
    vectors = a_direction().vectors
    vectors[2, 5] = value
    with pytest.raises(InputError, match="layers 2 are not finite"):
        replace(a_direction(), vectors=vectors).check()
    with pytest.raises(InputError, match="layers 2 are not finite"):
        replace(a_direction(), vectors=vectors).save(tmp_path / "d.safetensors")


def test_random_control_has_the_same_length_and_another_direction() -> None:
    vectors = torch.randn(6, 4096, generator=torch.Generator().manual_seed(3)) * torch.arange(1.0, 7.0)[:, None]
    direction = Direction(vectors=vectors, anchor=2)
    control = random_like(direction, seed=7)
    assert control.separation == pytest.approx(direction.separation, rel=1e-5)
    assert torch.cosine_similarity(control.vectors, vectors).abs().max() < 0.06
    assert control.anchor == 2
    assert torch.equal(control.vectors, random_like(direction, seed=7).vectors)
    assert not torch.equal(control.vectors, random_like(direction, seed=8).vectors)


@pytest.mark.parametrize(
    ("cosine", "anchor"),
    [
        ((0.2, 0.5, 0.95, 0.93, 1.0, 0.4), 2),
        ((0.95, 0.5, 0.95, 1.0), 2),  # good at layer 0, but not from there on
        ((1.0, 0.9, 0.9), 0),
        ((0.1, 0.2, 0.3), 2),
        ((0.9, 0.91, 1.0), 0),
        ((-0.1, -0.2), 0),
    ],
)
def test_anchor_is_the_first_layer_from_which_it_is_consistent(cosine: tuple[float, ...], anchor: int) -> None:
    assert anchor_layer(cosine, consistency=0.9) == anchor


def test_a_stricter_consistency_moves_the_anchor_up() -> None:
    cosine = (0.5, 0.7, 0.9, 1.0)
    assert [anchor_layer(cosine, c) for c in (0.4, 0.6, 0.8, 0.95)] == [0, 1, 2, 3]


def hidden_states(model: torch.nn.Module, ids: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask, position_ids=positions, output_hidden_states=True)
    return out.hidden_states


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_pitfall_2_hidden_states_are_shifted_by_one_and_end_after_the_norm(name: str) -> None:
    model = ARCHITECTURES[name]()
    captured = capture_last_token(model, IDS, MASK)
    reported = torch.stack([states[:, -1] for states in hidden_states(model, IDS, MASK)], dim=1)
    assert captured.shape == (3, LAYERS, HIDDEN)
    torch.testing.assert_close(captured[:, :-1], reported[:, 1:-1])
    assert not torch.allclose(captured[:, -1], reported[:, -1], atol=1e-2)
    decoder = inner_decoder(model)
    norm = next(getattr(decoder, n) for n in ("norm", "ln_f", "final_layer_norm") if hasattr(decoder, n))
    torch.testing.assert_close(norm(captured[:, -1]), reported[:, -1])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_pitfall_4_the_state_of_a_padded_prompt_is_that_of_the_prompt_alone(name: str) -> None:
    model = ARCHITECTURES[name]()
    left = capture_last_token(model, IDS, MASK)
    for row in range(len(IDS)):
        alone = IDS[row][MASK[row] == 1][None]
        torch.testing.assert_close(
            left[row], capture_last_token(model, alone, torch.ones_like(alone))[0], atol=1e-4, rtol=1e-4
        )
    right_ids, right_mask = IDS.flip(1), MASK.flip(1)
    prompts = [row[mask == 1] for row, mask in zip(right_ids, right_mask, strict=True)]
    right = capture_last_token(model, right_ids, right_mask)
    for row, prompt in enumerate(prompts):
        torch.testing.assert_close(
            right[row], capture_last_token(model, prompt[None], torch.ones_like(prompt)[None])[0], atol=1e-4, rtol=1e-4
        )


def test_capture_sees_a_compiled_model_and_leaves_no_hook() -> None:
    model = ARCHITECTURES["llama"]()
    expected = capture_last_token(model, IDS, MASK)
    model.compile(backend="eager")
    with torch.no_grad():
        model(input_ids=IDS, attention_mask=MASK)
    torch.testing.assert_close(capture_last_token(model, IDS, MASK), expected)
    with pytest.raises(IndexError):
        capture_last_token(model, IDS + 10_000, MASK)
    assert not any(module._forward_hooks for module in model.modules())
    torch.compiler.reset()


def test_capture_is_float32_and_computes_one_column_of_logits() -> None:
    model = ARCHITECTURES["llama"]().bfloat16()
    columns = []
    model.lm_head.register_forward_hook(lambda _m, _a, out: columns.append(out.shape[1]))
    assert capture_last_token(model, IDS, MASK).dtype == torch.float32
    assert columns == [1]


def test_lightning_can_collect_the_states() -> None:
    states = move_data_to_device([ContrastStates(torch.zeros(1, 2, 3), torch.ones(1, 2, 3))], torch.device("meta"))
    assert states[0].positive.is_meta
    assert states[0].negative.is_meta
