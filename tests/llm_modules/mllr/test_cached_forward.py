"""A pass that restarts gives the bits of a whole one, in bounded memory."""

import pytest
import torch

from llm_modules.mllr.cached_forward import CLEAN, CachedForward, Signature
from llm_modules.mllr.perturb import Perturbation
from llm_modules.mllr.probe import SecurityProbe
from llm_modules.mllr.robustness import Meter, robustness_map
from llm_modules.optim.module_names import Module
from tests.architectures import ARCHITECTURES, LAYERS

LENGTHS = (5, 9, 9, 12, 20, 7)


def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(3, 128, (n,), generator=generator).tolist() for n in LENGTHS]


def signature(*modules: Module) -> Signature:
    types = [tuple(m.type for m in modules if m.layer == layer) for layer in range(LAYERS)]
    return tuple((0, kinds) if kinds else CLEAN for kinds in types)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_same_bits_as_a_whole_pass_for_every_module(name: str) -> None:
    model = ARCHITECTURES[name]()
    perturbation = Perturbation(model, "gaussian", 0.5)
    cached = CachedForward(model, {"a": prompts()}, batch_size=2)
    whole = CachedForward(model, {"a": prompts()}, batch_size=2, restart=False)
    clean = cached.features("a", signature())
    assert torch.equal(clean, whole.features("a", signature()))
    base = frozenset({Module(1, "down")})
    sets = [*[frozenset({m}) for m in perturbation.modules], base, *[base | {m} for m in perturbation.modules]]
    for modules in sets:
        with perturbation.applied(modules):
            one = cached.features("a", signature(*modules), signature(*base))
            assert torch.equal(one, whole.features("a", signature(*modules))), [m.name for m in modules]
        assert not torch.equal(one, clean), "the perturbation shows"
    assert cached.work.done < 0.75 * whole.work.done
    assert whole.work.done == whole.work.full == cached.work.full


@pytest.mark.parametrize("name", ["llama", "gpt2", "falcon_alibi"])
def test_features_are_the_model_s_own_last_state_at_the_last_token(name: str) -> None:
    model = ARCHITECTURES[name]()
    found = CachedForward(model, {"a": prompts()}, batch_size=4).features("a", signature())
    for row, prompt in zip(found, prompts(), strict=True):
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([prompt]), output_hidden_states=True, use_cache=False).hidden_states[
                -1
            ]
        torch.testing.assert_close(row, alone[0, -1], atol=1e-4, rtol=1e-4)


def test_memory_is_bounded_and_costs_only_work() -> None:
    model = ARCHITECTURES["llama"]()
    perturbation = Perturbation(model, "gaussian", 0.5)
    forwards = {
        size: CachedForward(model, {"a": prompts()}, batch_size=2, memory=size) for size in (0, 12_000, 1 << 20)
    }
    for module in perturbation.modules:
        with perturbation.applied([module]):
            found = [forward.features("a", signature(module)) for forward in forwards.values()]
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], found[2])
    for size, forward in forwards.items():
        assert sum(t.element_size() * t.numel() for t in forward._kept.values()) == forward._held <= size
    done = [forward.work.done for forward in forwards.values()]
    assert done[0] > done[1] > done[2]


def test_an_error_in_a_pass_leaves_the_model_as_it_was() -> None:
    model = ARCHITECTURES["llama"]()
    forward = CachedForward(model, {"a": prompts()})
    forward.features("a", signature())

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    handle = model.model.layers[2].register_forward_hook(fail)
    with pytest.raises(ZeroDivisionError):
        forward.features("a", signature(Module(2, "q")))
    handle.remove()
    assert not any("forward" in vars(layer) for layer in model.model.layers)
    assert not any(layer._forward_hooks for layer in model.model.layers)


def test_what_was_compiled_is_restarted_too() -> None:
    model = ARCHITECTURES["llama"]()
    for index, layer in enumerate(model.model.layers):
        model.model.layers[index] = torch.compile(layer)
    perturbation = Perturbation(model, "gaussian", 0.5)
    cached, whole = (CachedForward(model, {"a": prompts()}, restart=restart) for restart in (True, False))
    cached.features("a", signature())
    with perturbation.applied([Module(2, "up")]):
        assert torch.equal(
            cached.features("a", signature(Module(2, "up"))), whole.features("a", signature(Module(2, "up")))
        )
    assert cached.work.done < whole.work.full + cached.work.full / 2


def test_other_classifiers_cost_no_pass_and_parts_only_their_own() -> None:
    model = ARCHITECTURES["llama"]()
    labels = {"search": torch.tensor([1, 1, 0, 0]), "check": torch.tensor([1, 0])}
    parts = {"search": prompts()[:4], "check": prompts()[4:]}
    forward = CachedForward(model, parts)
    features = forward.features("search", signature())
    meter = Meter(forward, Perturbation(model, "gaussian", 1.0), SecurityProbe.fit(features, labels["search"]), labels)
    found = robustness_map(meter, [0, 1], "search")
    assert len(found) == 2 * 7 * LAYERS
    passes, done = forward.work.passes, forward.work.done
    assert passes == 1 + 2 * 7 * LAYERS
    again = robustness_map(meter.with_probe(SecurityProbe.fit(features, labels["search"], 9.0)), [0, 1], "search")
    assert (forward.work.passes, forward.work.done) == (passes, done)
    assert any(a.scores != b.scores for a, b in zip(found, again, strict=True))
    swapped = meter.with_parts({"search": "check"}).scores((), 0, "search")
    assert swapped == meter.scores((), 0, "check")
    assert forward.work.done == done + 2 * 20 * LAYERS, "two prompts, padded to the longer"
