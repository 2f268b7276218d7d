"""Each supported family can be adapted, trained, contrasted, steered and generated with, without code of its own."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from datamodules.batch import IGNORE_INDEX, SupervisedBatch
from llm_modules.backbone.architecture import decoder_layers
from llm_modules.backbone.head import OutputHead
from llm_modules.backbone.states import capture_last_token
from llm_modules.generation import GenerationSettings, Generator
from llm_modules.loss import completion_loss
from llm_modules.optim.parameter_groups import named_groups
from llm_modules.s3cot import Steering
from tests.architectures import ARCHITECTURES, HIDDEN, LAYERS, VOCAB

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12]]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_adapter_learns_two_completions_by_heart(name: str) -> None:
    base = ARCHITECTURES[name]()
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    groups = named_groups(model.named_parameters())
    assert [group["name"] for group in groups] == ["matrices"], "an adapter is made of matrices alone"
    optimizer = torch.optim.AdamW(groups, lr=0.02)
    ids = torch.randint(3, VOCAB, (2, 10), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, :4] = IGNORE_INDEX
    batch = SupervisedBatch(ids, labels, torch.ones_like(ids))
    head = OutputHead(base)
    losses = []
    for _ in range(30):
        loss = completion_loss(base.get_decoder(), head, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_captured_can_be_put_back(name: str) -> None:
    """Adding one prompt's last-token state minus another's to a layer makes that layer's state the other's."""
    model = ARCHITECTURES[name]()
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    mask = torch.ones_like(ids)
    states = capture_last_token(model, ids, mask)
    assert states.shape == (2, LAYERS, HIDDEN)
    difference = states[1] - states[0]
    layer = 1
    seen: dict[str, torch.Tensor] = {}
    with Steering(model, difference) as steering:
        strengths = torch.zeros(1, LAYERS)
        strengths[0, layer] = 1.0
        steering.set_strengths(strengths)
        hook = decoder_layers(model)[layer].register_forward_hook(
            lambda _m, _i, out: seen.update(state=(out[0] if isinstance(out, tuple) else out)[0, -1])
        )
        model(input_ids=ids[:1], attention_mask=mask[:1])
        hook.remove()
    torch.testing.assert_close(seen["state"], states[1, layer], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_of_different_strength_generate_as_they_do_alone(name: str) -> None:
    model = ARCHITECTURES[name]()
    vectors = torch.randn(LAYERS, HIDDEN, generator=torch.Generator().manual_seed(1))
    settings = GenerationSettings(max_new_tokens=8, slots=2)
    strengths = torch.tensor([0.0, 2.0, -2.0])
    prompts = [PROMPTS[0], PROMPTS[1], PROMPTS[0]]

    def generate(rows: list[int]) -> list[tuple[int, ...]]:
        generator = Generator(model, settings, pad_id=0, eos_ids={2})
        with Steering(model, vectors) as steering:
            generator.listeners.append(steering)
            steering.set_strengths(strengths[rows])
            return [done.token_ids for done in generator.generate([prompts[row] for row in rows])]

    together = generate([0, 1, 2])
    assert together == [generate([row])[0] for row in range(3)]
    assert together[0] == Generator(model, settings, pad_id=0, eos_ids={2}).generate([prompts[0]])[0].token_ids
    assert len(set(together)) > 1, "strength must show"
