"""Figures as markup of the page: SVG files of any origin, made safe and fit for both themes."""

import re
import zlib
from xml.etree import ElementTree

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_ELEMENTS = {
    "svg",
    "g",
    "defs",
    "path",
    "rect",
    "circle",
    "use",
    "clipPath",
    "image",
    "pattern",
    "text",
    "title",
    "tspan",
}
_NAMES = re.compile(
    r"(id|d|x|y|x1|y1|x2|y2|r|cx|cy|width|height|viewBox|transform|clip-path|patternUnits|preserveAspectRatio)"
)
_LOOKS = re.compile(
    r"(fill|fill-opacity|fill-rule|stroke|stroke-width|stroke-opacity|stroke-linecap|stroke-linejoin|stroke-miterlimit"
    r"|stroke-dasharray|stroke-dashoffset|opacity|clip-path|clip-rule|font-family|font-size|font-style|font-weight"
    r"|text-anchor)"
)
"""How a shape looks: properties of a ``style``, or attributes of the same names."""
_LOCAL = re.compile(r"""url\(\s*['"]?#([\w-]+)['"]?\s*\)""")
_PLAIN = re.compile(r"#[0-9a-fA-F]{3,8}|[\w\s.,%'+-]*")
"""A colour, a number, a list of them, or a word; nothing that calls a function."""
_THEME = {
    "#000000": "ink",
    "#1a1a1a": "ink",
    "#ffffff": "paper",
    "#e6e6e6": "grid",
    "#cccccc": "grid",
    "#6e6e6e": "muted",
    "#0072b2": "blue",
    "#d55e00": "vermilion",
}
"""Colours of `callbacks.figure_style` that the themes have apart -> variable of the page."""


def safe_svg(content: bytes) -> str:
    """Markup of an SVG figure: only shapes, with ids of its own, and neutral colours that follow the page's theme.

    Empty if it is no SVG.
    """
    if b"<!ENTITY" in content:
        return ""
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError:
        return ""
    if root.tag != f"{_SVG}svg":
        return ""
    prefix = f"f{zlib.crc32(content):08x}-"
    made = _safe(root, prefix)
    made.set("width", "100%")
    made.attrib.pop("height", None)
    return ElementTree.tostring(made, encoding="unicode").replace("ns0:", "").replace("xmlns:ns0", "xmlns")


def _safe(element: ElementTree.Element, prefix: str) -> ElementTree.Element:
    made = ElementTree.Element(element.tag)
    made.text, made.tail = element.text, element.tail
    for name, value in element.attrib.items():
        if name in (_HREF, "href"):
            if value.startswith("#"):
                made.set("href", f"#{prefix}{value[1:]}")
            elif value.startswith("data:image/png;base64,"):
                made.set("href", value)
        elif name == "id":
            made.set(name, prefix + value)
        elif name == "clip-path":
            if _LOCAL.fullmatch(value):
                made.set(name, _LOCAL.sub(rf"url(#{prefix}\1)", value))
        elif _NAMES.fullmatch(name):
            made.set(name, value)
    if looks := _looks(element, prefix):
        made.set("style", "; ".join(f"{name}: {value}" for name, value in looks.items()))
    for child in element:
        if child.tag in {f"{_SVG}{name}" for name in _ELEMENTS}:
            made.append(_safe(child, prefix))
    return made


def _looks(element: ElementTree.Element, prefix: str) -> dict[str, str]:
    """How an element looks, by property: from its attributes, then from its ``style``, which counts more."""
    said = [(name, value) for name, value in element.attrib.items() if name != "clip-path"]
    for part in element.get("style", "").split(";"):
        name, _, value = part.partition(":")
        said.append((name.strip(), value))
    return {name: value for name, own in said if _LOOKS.fullmatch(name) and (value := _value(own.strip(), prefix))}


def _value(value: str, prefix: str) -> str:
    """A value with the theme's colours and ids of its own; empty if it may reach outside of the figure."""
    if local := _LOCAL.fullmatch(value):
        return f"url(#{prefix}{local[1]})"
    if not _PLAIN.fullmatch(value):
        return ""
    return f"var(--{_THEME[value.lower()]})" if value.lower() in _THEME else value
