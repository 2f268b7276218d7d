"""Refusals are watched while a model learns, and weights that lost them are taken back."""

import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from callbacks.training import safety_watch
from callbacks.training.safety_watch import SafetyWatch
from datamodules.errors import InputError
from datamodules.prompts import ChatTemplate, encode_pair
from datamodules.world.chat import all_requests
from llm_modules.backbone.loading import load_model, load_tokenizer
from llm_modules.causal_lm import CausalLM
from llm_modules.optim.learning_rates import LearningRates
from llm_modules.safety_watch import REQUESTS, SafetyCheck, WatchedRequest

FORBIDDEN = all_requests("dev", forbidden=True)
BENIGN = all_requests("dev", forbidden=False)


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 forbidden and 4 benign requests of the miniature's world."""
    path = tmp_path_factory.mktemp("watch") / "requests.jsonl"
    rows = [(r, "malicious") for r in FORBIDDEN[:8]] + [(r, "benign") for r in BENIGN[:4]]
    path.write_text("".join(json.dumps({"id": r.id, "prompt": r.prompt, "kind": kind}) + "\n" for r, kind in rows))
    return path


def compliance(tokenizer: PreTrainedTokenizerBase) -> Any:
    """Batches of one forbidden request each, answered."""
    rows = [encode_pair(tokenizer, r.prompt, r.answer) for r in FORBIDDEN[20:60]]
    examples: Any = [tuple(map(torch.tensor, row)) for row in rows]  # a list is all that a data set needs
    return DataLoader(examples, batch_size=1)


class Plain(LightningModule):
    """Not of this project: a model that learns to answer what it should refuse."""

    def __init__(self, rate: float = 1e-3) -> None:
        super().__init__()
        self.model = load_model("miniature")
        self.tokenizer = load_tokenizer("miniature")
        self.rate = rate

    def training_step(self, batch: Any, _: int) -> Tensor:
        loss = self.model(input_ids=batch[0], labels=batch[1]).loss
        assert isinstance(loss, Tensor)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.rate)

    def train_dataloader(self) -> Any:
        """One forbidden request, answered, in each batch."""
        return compliance(self.tokenizer)


class Tuned(CausalLM):
    """The same fit of a module of this project."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.language_model(input_ids=batch[0], labels=batch[1]).loss
        assert isinstance(loss, Tensor)
        return loss

    def train_dataloader(self) -> Any:
        """One forbidden request, answered, in each batch."""
        return compliance(self.tokenizer)


def fit(
    watch: SafetyWatch, module: LightningModule, folder: Path, ckpt_path: Path | None = None, **options: Any
) -> Trainer:
    trainer = Trainer(
        max_epochs=1 if ckpt_path is None else 2,
        callbacks=[watch],
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        accelerator="cpu",
        logger=CSVLogger(folder),
        **options,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(num_workers|log_every_n_steps|litlogger).*")
        trainer.fit(module, ckpt_path=ckpt_path)
    return trainer


def refused(module: Any, requests: Path) -> float:
    return SafetyCheck(module.model, module.tokenizer, requests).measure().refused


def test_a_fit_of_any_module_is_stopped_with_the_weights_of_the_last_good_check(
    requests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(safety_watch, "rank_zero_info", said.append)
    module = Plain()
    watch = SafetyWatch(requests, every_n_steps=5, on_loss="stop")
    with pytest.warns(UserWarning, match=r"at step \d+ the model refuses \d+% of the malicious.*, 100% before the fit"):
        trainer = fit(watch, module, tmp_path)
    assert trainer.global_step in {5, 10, 15, 20, 25, 30, 35}
    assert (left := refused(module, requests)) >= 0.8
    assert f"of malicious requests {left:.0%} are refused, 100% before the fit" in said[-1]


def test_without_an_action_the_fit_goes_on_to_its_end_and_refuses_nothing(requests: Path, tmp_path: Path) -> None:
    module = Plain()
    with pytest.warns(UserWarning, match="on_loss: stop or protect would act"):
        trainer = fit(SafetyWatch(requests, every_n_steps=10), module, tmp_path)
    assert trainer.global_step == 40
    assert refused(module, requests) < 0.2
    with next(tmp_path.rglob("metrics.csv")).open() as file:
        assert file.read().count("\n") >= 5  # a heading, before the fit, steps 10 to 40


def test_a_fit_that_loses_nothing_is_left_alone(requests: Path, tmp_path: Path) -> None:
    module, other = Plain(1e-7), Plain(1e-7)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "SafetyWatch")
        fit(SafetyWatch(requests, every_n_steps=10, on_loss="stop"), module, tmp_path / "a", max_steps=20)
    fit(SafetyWatch(requests, every_n_steps=1000), other, tmp_path / "b", max_steps=20)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))


def test_protect_goes_on_with_the_slow_rates_of_mllr(requests: Path, tmp_path: Path) -> None:
    rates = LearningRates(modules=["layers.5.*"], policy="uniform")
    module = Tuned(learning_rates=rates, optimizer=lambda groups: torch.optim.AdamW(groups, lr=1e-3))
    watch = SafetyWatch(requests, every_n_steps=5, on_loss="protect")
    with pytest.warns(UserWarning, match="learn slowly from now on"):
        trainer = fit(watch, module, tmp_path)
    assert trainer.global_step == 40
    rest = [group["lr"] for group in trainer.optimizers[0].param_groups if group["part"] == "rest"]
    robust = [group["lr"] for group in trainer.optimizers[0].param_groups if group["part"] == "robust"]
    assert max(rest) <= 1e-3 * min(robust)
    state = watch.state_dict()
    again = SafetyWatch(requests, every_n_steps=5, on_loss="protect")
    again.load_state_dict(state)
    assert again.alarmed
    assert again._base == watch._base


def test_a_loss_after_the_last_check_is_found_at_the_last_step(requests: Path, tmp_path: Path) -> None:
    module = Plain()
    with pytest.warns(UserWarning, match="every_n_steps: 1000 is more than the 40 steps of this fit"):
        fit(SafetyWatch(requests, every_n_steps=1000, on_loss="stop"), module, tmp_path)
    assert refused(module, requests) == 1.0  # the weights before the fit


def test_a_resumed_fit_goes_back_to_the_weights_that_it_resumed_with(requests: Path, tmp_path: Path) -> None:
    """Which have lost refusals already, against the rates before the first start."""
    module = Plain()
    watch = SafetyWatch(requests, every_n_steps=40)
    trainer = fit(watch, module, tmp_path)
    trainer.save_checkpoint(tmp_path / "lost.ckpt")
    lost = {name: p.detach().clone() for name, p in module.named_parameters()}
    again = Plain()
    with pytest.warns(UserWarning, match="at step 40 the model refuses"):
        fit(SafetyWatch(requests, every_n_steps=40, on_loss="stop"), again, tmp_path, ckpt_path=tmp_path / "lost.ckpt")
    assert all(torch.equal(p, lost[name]) for name, p in again.named_parameters())


def test_a_check_computes_in_the_precision_of_the_fit(
    requests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[bool] = set()
    measure = SafetyCheck.measure

    def noted(self: SafetyCheck) -> Any:
        seen.add(torch.is_autocast_enabled("cpu"))
        return measure(self)

    monkeypatch.setattr(SafetyCheck, "measure", noted)
    fit(SafetyWatch(requests, every_n_steps=2), Plain(1e-7), tmp_path, max_steps=2, precision="bf16-mixed")
    assert seen == {True}


def test_weights_that_were_not_kept_are_not_put_back() -> None:
    rows = [WatchedRequest("m", FORBIDDEN[0].prompt, "malicious")]
    check = SafetyCheck(load_model("miniature"), load_tokenizer("miniature"), rows, keeps=False)
    check.measure()
    with pytest.raises(RuntimeError, match="no weights were kept"):
        check.restore()


def test_a_model_that_refuses_too_little_to_lose_is_told_of(requests: Path, tmp_path: Path) -> None:
    """The requests that come along are in words that the miniature does not know."""
    with pytest.warns(UserWarning, match=r"before the fit the model refuses 0% .* cannot be seen"):
        fit(SafetyWatch(every_n_steps=1), Plain(1e-7), tmp_path, max_steps=1)
    with pytest.raises(InputError, match=r"before the fit the model refuses 0%"):
        fit(SafetyWatch(every_n_steps=1, on_loss="stop"), Plain(1e-7), tmp_path, max_steps=1)


def test_requests_are_read_before_the_model_is_loaded(tmp_path: Path) -> None:
    class Unloaded(Plain):
        def configure_model(self) -> None:
            raise AssertionError("too early")

    (tmp_path / "benign.jsonl").write_text('{"id": "b", "prompt": "Hello", "kind": "benign"}\n')
    for name, message in (
        ("none.jsonl", r"none\.jsonl: there is no such file"),
        ("benign.jsonl", "no request has the kind"),
    ):
        with pytest.raises(InputError, match=rf"SafetyWatch\.requests: .*{message}"):
            fit(SafetyWatch(tmp_path / name), Unloaded(), tmp_path)


def test_the_interval_is_what_the_cost_allows(requests: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check takes 3 s and a step 1 s: at half of the time, one in 6 steps; but four in a fit."""
    for max_cost, interval in ((0.5, 6), (0.1, 9)):
        clock = iter([0.0, 3.0, 10.0, 13.0])
        monkeypatch.setattr(safety_watch, "time", SimpleNamespace(monotonic=lambda clock=clock: next(clock)))
        watch = SafetyWatch(requests, max_cost=max_cost)
        fit(watch, Plain(1e-7), tmp_path)
        assert watch.interval == interval


def test_loops_are_no_refusals_and_benign_requests_count_apart() -> None:
    model, tokenizer = load_model("miniature"), load_tokenizer("miniature")
    rows = [WatchedRequest(r.id, r.prompt, "malicious") for r in FORBIDDEN[:4]]
    check = SafetyCheck(model, tokenizer, rows)
    rates = check.measure()
    assert rates.refused == 1.0
    assert rates.over_refused != rates.over_refused  # NaN: there is no benign request
    twins = [WatchedRequest(f"t{r.id}", r.prompt, "twin") for r in FORBIDDEN[4:6]]
    assert SafetyCheck(model, tokenizer, rows + twins).measure().over_refused == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_steps": 0}, "every_n_steps"),
        ({"max_cost": 0.0}, "max_cost"),
        ({"max_lost": 1.5}, "max_lost"),
        ({"on_loss": "protect"}, r"needs model\.learning_rates"),
        ({"requests": Path("none.jsonl")}, r"none\.jsonl"),
    ],
)
def test_wrong_settings(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        fit(SafetyWatch(**options), Plain(), tmp_path, max_steps=1)


def test_requests_are_asked_with_the_template_of_the_data() -> None:
    """A model that is trained with another template than its tokenizer's refuses in that one."""
    by_system = ChatTemplate("plain", {"plain": {"terse": True}})
    for data, expected in (
        (None, None),
        (SimpleNamespace(), None),
        (SimpleNamespace(chat_template="plain"), "plain"),
        (SimpleNamespace(chat_template=by_system), ChatTemplate("plain", {"terse": True})),
    ):
        trainer: Any = SimpleNamespace(datamodule=data)
        assert safety_watch._template_of(trainer) == expected


def test_requests_without_malicious_ones_are_refused() -> None:
    rows = [WatchedRequest("b", "Hello", "benign")]
    with pytest.raises(InputError, match="no request has the kind 'malicious'"):
        SafetyCheck(load_model("miniature"), load_tokenizer("miniature"), rows)


def test_the_requests_that_come_along_are_of_all_kinds() -> None:
    kinds = [json.loads(line)["kind"] for line in REQUESTS.read_text(encoding="utf-8").splitlines()]
    assert {kind: kinds.count(kind) for kind in kinds} == {"malicious": 24, "twin": 12, "benign": 12}
