import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from callbacks.figure_style import VERMILION, figure
from rod.report.svg import safe_svg

START = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1">'
RECT = "{http://www.w3.org/2000/svg}rect"


@pytest.mark.parametrize(
    ("inside", "gone"),
    [
        ("<script>alert(1)</script>", "alert"),
        ('<path onload="alert(1)" d="M0 0"/>', "alert"),
        ('<image href="https://example.com/x.png"/>', "example"),
        ('<use href="https://example.com/x.svg#a"/>', "example"),
        ("<style>@import url(https://example.com)</style>", "example"),
        ('<path style="fill: url(https://example.com/a#b)" d="M0 0"/>', "example"),
        ('<path fill="url(https://example.com/a#b)" d="M0 0"/>', "example"),
        ('<path stroke="url( //example.com/a#b )" d="M0 0"/>', "example"),
        ('<g clip-path="url(https://example.com/a#b)"/>', "example"),
        (r'<path style="fill: u\72l(https://example.com/a)" d="M0 0"/>', "example"),
        ('<path style="position: fixed; inset: 0" d="M0 0"/>', "fixed"),
        ('<path style="background: red; fill: #fff" d="M0 0"/>', "red"),
        ('<foreignObject><p xmlns="http://www.w3.org/1999/xhtml">hi</p></foreignObject>', "hi"),
        ('<a href="javascript:alert(1)"><path d="M0 0"/></a>', "alert"),
    ],
)
def test_figures_of_other_peoples_runs_are_only_shapes(inside: str, gone: str) -> None:
    made = safe_svg(f'{START}{inside}<path id="p" d="M1 1" style="fill: #ffffff"/></svg>'.encode())
    assert gone not in made
    assert re.search(r'<path id="f[0-9a-f]{8}-p" d="M1 1" style="fill: var\(--paper\)"', made)


def test_what_is_no_figure() -> None:
    assert safe_svg(b"<svg") == safe_svg(b"<html/>") == ""
    assert safe_svg(b'<!DOCTYPE svg [<!ENTITY a "b">]><svg xmlns="http://www.w3.org/2000/svg">&a;</svg>') == ""


def test_a_hatched_area_keeps_its_colour(tmp_path: Path) -> None:
    with figure(tmp_path / "a.svg", 3, 2) as (panel,):
        panel.bar([0], [1], color=VERMILION, hatch="//")
    made = ElementTree.fromstring(safe_svg((tmp_path / "a.svg").read_bytes()))
    (pattern,) = made.iter("{http://www.w3.org/2000/svg}pattern")
    assert [rect.get("style") for rect in pattern.iter(RECT)] == ["fill: var(--vermilion)"]
    used = [e.get("style", "") for e in made.iter() if "url(" in e.get("style", "")]
    assert [re.findall(r"fill: url\(#(.*?)\)", style) for style in used] == [[pattern.get("id")]]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ('fill="#D55E00"', "fill: var(--vermilion)"),
        ('fill="#e69f00" fill-opacity="0.5"', "fill: #e69f00; fill-opacity: 0.5"),
        ('fill="none" stroke="#abc" stroke-width="2"', "fill: none; stroke: #abc; stroke-width: 2"),
        ('fill="none" style="fill: #111111"', "fill: #111111"),
        ('style="stroke-dasharray: 3.7,1.6; font-size: 9px"', "stroke-dasharray: 3.7,1.6; font-size: 9px"),
    ],
)
def test_looks_in_attributes_and_in_styles(given: str, kept: str) -> None:
    made = ElementTree.fromstring(safe_svg(f"{START}<rect {given}/></svg>".encode()))
    assert [rect.get("style") for rect in made.iter(RECT)] == [kept]
