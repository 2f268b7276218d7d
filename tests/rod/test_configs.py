"""Every shipped configuration is built by the command in its comments: alone, or over the stage that it belongs to."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from datamodules.errors import InputError
from llm_modules.optim.robust_modules import RobustModules
from rod import classes
from rod.__main__ import LIGHTNING, VERBS, main
from rod.cli import RodCLI
from rod.failures import explain_failure
from rod.shipped import CONFIGS, find, shipped
from rod.verbs.configs import listing
from tests.rod.commands import commands, configs_of


def command_of(name: str) -> list[str]:
    """Verb and configurations, the last one ``name``, of the command in its comments; suites and judges need none."""
    for words in commands(CONFIGS / f"{name}.yaml"):
        names = ["s3cot/5_curriculum" if stage == "STAGE" else stage for stage in configs_of(words)]
        if name in names:
            return [words[0], *names[: names.index(name) + 1]]
    assert name.startswith(("suites/", "judges/")), f"{name}: its comments show no command"
    safety = ["suites/advbench"] if name == "suites/attack_templates" else []
    return ["test", "test", *safety, name]


COMMANDS = {name: command_of(name) for name in shipped()}
LIGHTNINGS = {name: words for name, words in COMMANDS.items() if VERBS[words[0]] == LIGHTNING}
STAGES = [name for name, words in LIGHTNINGS.items() if words[1:] == [name]]
ACROSS = [name for name in LIGHTNINGS if name.startswith(("engine/", "logger/", "model/", "trainer/"))]
FRAGMENTS = [name for name in LIGHTNINGS if name not in STAGES]
NEEDS_SUITE = ("test", "mllr/3_test", "mogu/4_test")
SAMPLING = (*NEEDS_SUITE, "mogu/0_answers", "s3cot/2_calibrate", "s3cot/3_sample", "s3cot/6_test")


def refusal(stage: str, fragment: str) -> str:
    """How the error begins with which a stage refuses a fragment; empty if it takes it."""
    if fragment.startswith("engine/") and stage not in SAMPLING:
        return "data.rows_per_batch: there is no such key"
    if fragment == "model/lora" and stage in ("mogu/3_router", "mogu/4_test"):
        return "model.peft: a MoGU trains routers"
    if fragment == "model/hybrid_thinking" and stage.startswith("miniature/"):
        return "data.chat_template_kwargs.system1.enable_thinking: there is no such key"
    if fragment == "logger/mlflow" and find_spec("mlflow") is None:
        return "trainer: Requirement 'mlflow"
    return ""


def read(capsys: pytest.CaptureFixture[str], verb: str, *names: str) -> dict:
    """The configuration of a verb that is not Lightning's."""
    with pytest.raises(SystemExit) as done:
        main([verb, *configs(*names), "--print_config"])
    assert done.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


def configs(*names: str) -> list[str]:
    return [word for name in names for word in ("--config", find(name))]


class Built(RodCLI):
    """Model, data, callbacks and trainer, of which nothing is run."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def build(verb: str, *names: str) -> dict:
    """Build all that a command builds before it runs; returns its configuration. It may lack suites."""
    suite = ["suites/gsm8k"] if names[0] in NEEDS_SUITE and not any("suites/" in name for name in names) else []
    built = Built([verb, *configs(*names, *suite)])
    return yaml.safe_load(built._parser(verb).dump(built.config[verb], skip_none=False, skip_link_targets=False))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the result of ML-LR's search, which its stages read when they are built."""
    monkeypatch.chdir(tmp_path)
    types = ("q", "k", "v", "o", "gate", "up", "down")
    for stage in ("mllr/1_search", "mllr/s3cot/1_search"):
        found = RobustModules("miniature", None, 6, types, robust=("layers.1.q",), tau=0.1, seeds=(0,))
        found.save(tmp_path / "runs" / stage / "robust_modules.yaml")


def value_at(tree: object, path: tuple) -> object:
    """The value of a key, which may leave out ``init_args`` on its way."""
    for key in path:
        assert isinstance(tree, dict), f"{path}: {key}"
        tree = tree[key] if key in tree else tree["init_args"][key]
    return tree


def leaves(tree: object, path: tuple = ()) -> list[tuple[tuple, object]]:
    if isinstance(tree, dict):
        return [leaf for key, value in tree.items() for leaf in leaves(value, (*path, key))]
    return [(path, tree)]


def test_every_verb_and_method_has_its_stages() -> None:
    assert {COMMANDS[name][0] for name in STAGES} == {"fit", "predict", "test"}
    assert {name.partition("/")[0] for name in STAGES} >= {"crisp", "miniature", "mllr", "mogu", "s3cot", "test"}


@pytest.mark.parametrize("name", STAGES)
def test_stages(name: str) -> None:
    found = build(*COMMANDS[name])
    asked = yaml.safe_load(shipped()[name].read_text())
    assert found["model"]["class_path"].endswith(asked["model"]["class_path"])
    lists = {key: value for key, value in asked["data"].get("init_args", {}).items() if key != "suites"}
    assert found["data"]["init_args"].items() >= lists.items()
    assert found["trainer"]["use_distributed_sampler"] is False


@pytest.mark.parametrize("name", FRAGMENTS)
def test_fragments_change_what_they_name(name: str) -> None:
    if name == "logger/mlflow":
        pytest.importorskip("mlflow", reason="needs pip install mlflow")
    found = build(*COMMANDS[name])
    for path, value in leaves(yaml.safe_load(shipped()[name].read_text())):
        if path[-1] == "class_path" or isinstance(value, list):
            continue
        assert value_at(found, path) == value, ".".join(map(str, path))


@pytest.mark.parametrize("fragment", ACROSS)
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_built_with_what_is_for_all_stages_or_refuses_it(stage: str, fragment: str) -> None:
    words = refusal(stage, fragment)
    if not words:
        build(*COMMANDS[stage], fragment)
        return
    with pytest.raises((InputError, ValueError)) as caught:
        build(*COMMANDS[stage], fragment)
    failure = explain_failure(caught.value)
    assert failure is not None, caught.value
    assert failure[1].startswith(f"error: {words}")


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - LIGHTNINGS.keys()))
def test_those_of_other_verbs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = read(capsys, *COMMANDS[name])
    assert found.keys() >= yaml.safe_load(shipped()[name].read_text()).keys()


def test_every_key_of_a_stage_is_explained() -> None:
    """Each default that a paper or we chose says so: at least one mark in every stage of the method."""
    for path in sorted((CONFIGS / "s3cot").glob("*.yaml")):
        text = Path(path).read_text()
        assert any(mark in text for mark in ("# paper", "# likely", "# ours")), path.name


def test_every_one_says_what_it_is_and_what_its_classes_are() -> None:
    known = {path.rpartition(".")[2] for path in classes.ALL}
    for path in shipped().values():
        first, *rest = path.read_text().splitlines()
        assert first.startswith("# "), path
        named = re.findall(r"class_path: (\w+)\s", "\n".join(rest))
        assert set(named) <= known, path


def test_rod_configs_lists_them_by_folder() -> None:
    text = listing()
    assert len([line for line in text.splitlines() if line]) == len(shipped())
    assert re.search(r"^s3cot/1_direction +Stage 1: ", listing("s3cot"), re.MULTILINE)
    assert all(line.startswith("s3cot/") for line in listing("configs/s3cot").splitlines() if line)
    with pytest.raises(InputError, match="no name contains 's4cot'"):
        listing("s4cot")


def test_they_are_found_from_any_folder_and_a_local_file_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for word in ("s3cot/1_direction", "configs/s3cot/1_direction", "configs/s3cot/1_direction.yaml"):
        assert Path(find(word)) == CONFIGS / "s3cot/1_direction.yaml"
    Path("s3cot").mkdir()
    Path("s3cot/1_direction").touch()
    assert find("s3cot/1_direction") == "s3cot/1_direction"
    with pytest.raises(InputError, match=r"no file 's3cot/1_directon'.*did you mean 's3cot/1_direction'\?"):
        find("s3cot/1_directon")
