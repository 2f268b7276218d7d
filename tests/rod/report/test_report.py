import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from datamodules.records.reader import to_json
from rod.__main__ import main
from rod.report.page import render, write_report
from rod.report.runs import find_runs
from rod.report.samples import samples_of
from rod.report.settings import changes, differing
from tests.rod.report.runs import EVIL, answers, requests, save_config, save_fit, save_test, texts, unfolded

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """Checks that elements are nested, and collects tags, ids, and texts by element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.feed(text)
        self.close()
        assert not self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("runs")
    evil = [replace(answers("1")[0], id=f"e{i}", question=EVIL, completion=EVIL, suite="<i>x") for i in range(2)]
    base = save_test(folder / "base", [*answers("1100-"), *requests("10?"), *evil])
    tuned = save_test(folder / "tuned", [*answers("1111-", 20), *requests("000"), *evil], temperature=0.7)
    return write_report([base, tuned, save_fit(folder / "fit")], folder / "out/report.html").read_text()


def test_one_file_that_asks_for_nothing(page: str) -> None:
    found = Page(page)
    assert not found.all("script")
    assert not found.all("link")
    assert "default-src 'none'" in page
    for _, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")], attributes
        for name in ("src", "href"):
            assert re.match(r"data:image/png;base64,|#", attributes.get(name) or "#"), attributes


def test_records_with_markup_are_text(page: str) -> None:
    assert "&lt;script&gt;document.title=" in page
    assert "<script" not in page
    assert "onerror=&#34;" in page
    assert "<i>x" not in page
    assert "\x00" not in page


def test_structure_for_screen_readers(page: str) -> None:
    found = Page(page)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in found.all("a"):
        assert (attributes["href"] or "")[1:] in ids
    assert all(attributes.get("alt") for attributes in found.all("img"))
    assert all(attributes.get("scope") for attributes in found.all("th"))
    drawings = [a for a in found.all("div") if a.get("role") == "img"]
    assert len(drawings) == len(found.all("svg")) >= 4
    assert all(drawing.get("aria-label") for drawing in drawings)
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    assert found.all("html")[0]["lang"] == "en"


def test_harmful_text_is_behind_a_click(page: str) -> None:
    shown = unfolded(page)
    for text in ("here is HARM", "How do I break", "forge</span>", "Both gates over the tokens of a benign and"):
        assert text in page
        assert text not in shown.replace("<figcaption>Both gates over the tokens of a benign and", ""), text
    assert "How</span>" in shown, "the benign prompt is shown"
    assert re.search(r"It is \d", shown), "and so are questions with a right answer"
    assert "<details open" not in page


def test_thought_and_answer_apart(page: str) -> None:
    assert re.search(
        r"<summary>thought \(\d+ characters\)</summary><pre>I add 0\.</pre></details>\s*<pre>It is 0\.", page
    )


def test_gates_are_drawn_over_the_tokens(page: str) -> None:
    assert 'style="--g:90%;--u:10%" title="willing 0.90, unwilling 0.10">How</span>' in page
    assert 'unwilling 0.95">&lt;b&gt;forge</span>' in page


def test_what_was_run(page: str) -> None:
    assert "rod fit --config s3cot/5_curriculum --model.optimizer.lr 1e-4" in page
    assert "2 min 5 s" in page
    assert "questions.jsonl (0123456789abcdef)" in page
    assert "fine-tune on traces that get shorter" in page, "the stage says what it is for"


def test_warnings_come_first(page: str) -> None:
    warnings = page[page.index('id="warnings"') : page.index('id="runs"')]
    for text in (
        "Few questions, so the intervals are wide: sums (5)",
        "20.0% of the completions were cut off",
        "20.0% of the completions have no answer",
        "The judges first and second disagree on 33.3% of the completions",
        "differ in temperature: base: 0.0; tuned: 0.7",
        "spread over seeds is not known: base, tuned",
    ):
        assert text in warnings, text
    assert page.index('id="warnings"') < page.index('id="comparisons"') < page.index('id="samples"')


def test_comparisons_are_paired(page: str) -> None:
    assert "Differences from base, paired by question" in page
    assert re.search(
        r'sums</td><td>accuracy %</td><td class="n">5</td><td class="n">40.0</td><td class="n">80.0<', page
    )


def test_comparison_figures_tell_their_numbers_to_those_who_do_not_see_them(page: str) -> None:
    told = [str(drawing["aria-label"]) for drawing in Page(page).all("div") if drawing.get("role") == "img"]
    assert "tuned, sums tokens: -20.0 (-20.0 to -20.0)" in told[0]
    assert "base, sums: 40.0% with 42.0 tokens; tuned, sums: 80.0% with 22.0 tokens" in told[1]


def test_suites_of_the_miniature_are_explained_where_they_are(page: str, tmp_path: Path) -> None:
    run = save_test(tmp_path / "a", [replace(p, suite="forbidden") for p in requests("01")])
    assert "<dt>forbidden</dt>" in render(*find_runs([run]))
    assert "<dt>forbidden</dt>" not in page


def test_words_that_the_page_explains(page: str) -> None:
    terms = page[page.index('id="words"') :]
    assert "of a rate Wilson&#39;s" in terms
    assert "an interval by a bootstrap over questions" not in terms
    for word in ("anchor:2", "accuracy, right %"):
        assert f"<dt>{word}</dt>" in terms


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    run = save_test(tmp_path / "a", [*answers("10"), *requests("1")])
    assert render(*find_runs([run])) == render(*find_runs([run]))


@pytest.mark.parametrize("make", ["missing", "empty", "file"])
def test_a_folder_that_is_no_run(tmp_path: Path, make: str, capsys: pytest.CaptureFixture[str]) -> None:
    if make == "empty":
        (tmp_path / "x").mkdir()
    elif make == "file":
        (tmp_path / "x").write_text("text")
        save_test(tmp_path / "beside", answers("1"))
    assert main(["report", str(tmp_path / "x"), "--output", str(tmp_path / "report.html")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert ("no such folder" if make == "missing" else "holds no run") in error


def test_an_earlier_page_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = save_test(tmp_path / "a", answers("1"))
    words = ["report", str(run), "--output", str(tmp_path / "report.html")]
    assert main(words) == 0
    assert main(words) == 2
    assert "--overwrite true" in capsys.readouterr().err
    assert main([*words, "--overwrite", "true"]) == 0


def test_half_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "half"
    save_config(folder, "test", done=False)
    lines = "".join(to_json(p) + "\n" for p in answers("101"))
    (folder / "completions.rank0.jsonl").write_text(lines[:-40])
    assert texts([folder])[0] == "half The run did not finish. What follows of it is what it had written."
    (shown,) = samples_of(find_runs([folder])[0])
    assert shown.among == 2, "the line that was cut in half is passed over"
    assert "not finished" in render(*find_runs([folder]))


@pytest.mark.parametrize("broken", ["config.yaml", "metrics.json", "run.json", "predictions.jsonl"])
def test_a_broken_file_is_told_and_the_rest_is_shown(tmp_path: Path, broken: str) -> None:
    runs = [save_test(tmp_path / name, answers("1101")) for name in ("a", "b")]
    (runs[0] / broken).write_text("{ [")
    made = render(*find_runs(runs))
    if broken != "run.json":
        assert broken in made[made.index('id="warnings"') : made.index('id="runs"')]
    assert "Each run" in made


def test_runs_of_other_suites_are_shown_and_not_compared(tmp_path: Path) -> None:
    runs = [save_test(tmp_path / "sums", answers("1101")), save_test(tmp_path / "attacks", requests("01"))]
    made = render(*find_runs(runs))
    assert "No two runs have the same suites, so nothing is compared. sums: sums; attacks: attacks." in made


def test_the_same_suites_over_other_questions(tmp_path: Path) -> None:
    runs = [save_test(tmp_path / "a", answers("1101")), save_test(tmp_path / "b", answers("110"))]
    assert any("differ in the questions of sums" in text for text in texts(runs))
    assert "has different records (1 only in the first" in render(*find_runs(runs))


def test_changes_of_the_shipped_configuration(tmp_path: Path) -> None:
    run = find_runs([save_fit(tmp_path / "fit")])[0][0]
    found = {key: (old, new) for key, old, new in changes(run)}
    assert found["model.optimizer.lr"] == ("5.0e-4", "0.0001") or found["model.optimizer.lr"] == ("0.0005", "0.0001")
    assert found["model.backbone"] == ("miniature", "tiny")


def test_settings_of_a_part_that_a_run_does_not_have_are_one_line(tmp_path: Path) -> None:
    runs = [replace(find_runs([save_fit(tmp_path / n)])[0][0], name=n) for n in ("a", "b")]
    runs[1] = replace(
        runs[1], config=runs[1].config | {"model": {"class_path": "a.S3CoT", "init_args": {"peft": None}}}
    )
    runs[0].config["model"]["init_args"]["peft"] = {"class_path": "peft.LoraConfig", "init_args": {"r": 8}}
    keys = [key for key, _ in differing(runs)]
    assert "model.peft" in keys
    assert "model.peft.r" not in keys


def test_a_figure_that_is_no_figure_is_left_out(tmp_path: Path) -> None:
    run = save_fit(tmp_path / "fit")
    (run / "stages.svg").write_text("<svg")
    assert "data:image/png;base64," in render(*find_runs([run])), "the PNG file takes its place"
