"""The docs site: the generated reference has every key with an explanation, and the navigation every page."""

import re
from pathlib import Path

import pytest
import yaml

from rod import classes, reference
from rod.__main__ import VERBS
from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "AGENTS.md"]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return reference.pages()


def test_every_class_and_verb_has_a_section(pages: dict[str, str]) -> None:
    for path in classes.ALL:
        assert f"\n### {path.rpartition('.')[2]}\n" in pages["reference/keys.md"]
    for verb in VERBS:
        assert f"\n### rod {verb}\n" in pages["reference/verbs.md"]
    for part in ("GenerationSettings", "LearningRates", "Suite", "RouterConfig"):
        assert f"\n### {part}\n" in pages["reference/keys.md"]


def test_every_key_is_explained(pages: dict[str, str]) -> None:
    rows = [row for name in ("keys", "verbs") for row in pages[f"reference/{name}.md"].splitlines() if row[:3] == "| `"]
    assert len(rows) > 300
    assert not [row for row in rows if re.search(r"\|\s*\|$", row)]


def test_known_keys_are_as_the_code_has_them(pages: dict[str, str]) -> None:
    keys = pages["reference/keys.md"]
    for row in (
        "| `trainer.max_steps` | int | `-1` |",
        "| `evaluate.judges` | list of [Judge](#judges) |",
        "| `penalty` | `mse`, `l1` | `mse` |",
        "| `generation` | [GenerationSettings](#generationsettings) |",
        "Also takes the keys of [CausalLM](#causallm).",
    ):
        assert row in keys
    assert "| `--model` | [CausalLM](keys.md#causallm) |" in pages["reference/verbs.md"]
    assert str(ROOT) not in "".join(pages.values())


def test_every_page_is_in_the_navigation_once(pages: dict[str, str]) -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    named = re.findall(r"[\w/]+\.md", str(site["nav"]))
    generated = {place for place in pages if "/api/" not in place}
    generated |= {notebook.relative_to(DOCS).with_suffix(".md").as_posix() for notebook in DOCS.rglob("*.ipynb")}
    assert sorted(named) == sorted({page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} | generated)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path, pages: dict[str, str]) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if DOCS in target.parents and target.relative_to(DOCS).as_posix() in pages:
            continue
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mkdocstrings", reason="needs pip install 'lightning-rod[docs]'")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    monkeypatch.chdir(ROOT)
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path)))
    assert "GenerationSettings" in (tmp_path / "reference/keys/index.html").read_text()
