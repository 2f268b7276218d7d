"""Every shipped configuration is read by the command, alone or over the stage that it belongs to."""

import re
from pathlib import Path

import pytest
import yaml

from datamodules.errors import InputError
from rod import classes
from rod.__main__ import main
from rod.shipped import CONFIGS, find, shipped
from rod.verbs.configs import listing

VERBS = {
    "miniature/1_pretrain.yaml": "fit",
    "miniature/2_align.yaml": "fit",
    "mllr/0_pilot.yaml": "fit",
    "mllr/1_probe_and_search.yaml": "predict",
    "mllr/3_test.yaml": "test",
    "mogu/0_answers.yaml": "predict",
    "mogu/1_glad.yaml": "fit",
    "mogu/2_unwilling.yaml": "fit",
    "mogu/3_router.yaml": "fit",
    "mogu/4_test.yaml": "test",
    "mogu/v2/1_probe.yaml": "predict",
    "mogu/controls/safety_sft.yaml": "fit",
    "mogu/controls/refusal_direction.yaml": "predict",
    "mllr/2_tune.yaml": "fit",
    "s3cot/1_direction.yaml": "predict",
    "s3cot/2_calibrate.yaml": "predict",
    "s3cot/3_sample.yaml": "predict",
    "s3cot/5_curriculum.yaml": "fit",
    "s3cot/6_test.yaml": "test",
    "test.yaml": "test",
}
OVER = {
    "logger/wandb.yaml": "s3cot/5_curriculum.yaml",
    "model/lora.yaml": "miniature/2_align.yaml",
    "trainer/ddp.yaml": "s3cot/5_curriculum.yaml",
    "trainer/fsdp.yaml": "s3cot/5_curriculum.yaml",
    "mogu/controls/rejections.yaml": "mogu/0_answers.yaml",
    "mogu/controls/d_router_folded.yaml": "mogu/3_router.yaml",
    "mogu/controls/self_reminder.yaml": "mogu/3_router.yaml",
    "mogu/controls/icd.yaml": "mogu/3_router.yaml",
    "mogu/controls/safedecoding.yaml": "mogu/3_router.yaml",
    "mogu/controls/conditional_steering.yaml": "mogu/3_router.yaml",
    "mogu/controls/safety_sft_test.yaml": "mogu/3_router.yaml",
    "mogu/v2/2_joint.yaml": "mogu/3_router.yaml",
    "mogu/suites.yaml": "mogu/4_test.yaml",
    "mogu/v2/task.yaml": "mogu/4_test.yaml",
    "mogu/real/alpaca.yaml": "mogu/0_answers.yaml",
    "mogu/real/rejections.yaml": "mogu/0_answers.yaml",
    "mogu/real/held_out.yaml": "mogu/4_test.yaml",
    **{
        f"mllr/controls/{name}.yaml": "mllr/2_tune.yaml"
        for name in (
            "adapters_only",
            "sppft",
            "swat",
        )
    },
    "mllr/curriculum.yaml": "s3cot/5_curriculum.yaml",
    "mllr/controls/noise.yaml": "mllr/1_probe_and_search.yaml",
    "mllr/real/advbench.yaml": "mllr/1_probe_and_search.yaml",
    "mllr/real/alpaca.yaml": "mllr/2_tune.yaml",
    "mllr/real/gsm8k.yaml": "mllr/2_tune.yaml",
    "mllr/suites/safety.yaml": "mllr/3_test.yaml",
    "mllr/suites/abilities.yaml": "mllr/3_test.yaml",
    "mllr/suites/task_maths.yaml": "mllr/3_test.yaml",
    "mllr/suites/task_howto.yaml": "mllr/3_test.yaml",
    "s3cot/controls/base.yaml": "s3cot/6_test.yaml",
    "s3cot/controls/sweep.yaml": "s3cot/2_calibrate.yaml",
    "s3cot/real/gsm8k.yaml": "s3cot/3_sample.yaml",
    "s3cot/real/gsm8k_contrast.yaml": "s3cot/1_direction.yaml",
    "s3cot/real/gsm8k_test.yaml": "s3cot/6_test.yaml",
    "s3cot/real/gsm8k_curriculum.yaml": "s3cot/5_curriculum.yaml",
}
"""Fragment -> the stage that it is read after."""
SUITES = sorted(path.relative_to(CONFIGS).as_posix() for path in (CONFIGS / "suites").glob("*.yaml"))
OVER |= dict.fromkeys(SUITES, "test.yaml")
OTHER_VERBS = {"s3cot/real/import_concise_cot.yaml", "mogu/pairs.yaml", "mogu/real/advbench.yaml", "judges/train.yaml"}
JUDGES = ("phrases", "classifier", "harmbench", "llama_guard", "strongreject", "server")
OVER |= dict.fromkeys((f"judges/{name}.yaml" for name in JUDGES), "test.yaml")


def read(capsys: pytest.CaptureFixture[str], verb: str, *names: str) -> dict:
    words = [word for name in names for word in ("--config", str(CONFIGS / name))]
    with pytest.raises(SystemExit) as done:
        main([verb, *words, "--print_config"])
    assert done.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


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


def test_none_is_forgotten() -> None:
    shipped = {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml")}
    assert shipped == {*VERBS, *OVER, *OTHER_VERBS}


@pytest.mark.parametrize("name", VERBS)
def test_stages(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["suites/gsm8k.yaml"] if name == "test.yaml" else []  # it needs one suite at least
    found = read(capsys, VERBS[name], name, *more)
    asked = yaml.safe_load((CONFIGS / name).read_text())
    assert found["model"]["class_path"].endswith(asked["model"]["class_path"])
    lists = {key: value for key, value in asked["data"].get("init_args", {}).items() if key != "suites"}
    assert found["data"]["init_args"].items() >= lists.items()
    assert found["trainer"]["use_distributed_sampler"] is False


@pytest.mark.parametrize("name", OVER)
def test_fragments_change_what_they_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    stage = OVER[name]
    more = ["suites/advbench.yaml"] if name == "suites/attack_templates.yaml" else []
    found = read(capsys, VERBS[stage], stage, *more, name)
    for path, value in leaves(yaml.safe_load((CONFIGS / name).read_text())):
        if path[-1] == "class_path" or isinstance(value, list):
            continue
        assert value_at(found, path) == value, ".".join(map(str, path))


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
