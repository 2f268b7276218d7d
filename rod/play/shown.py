"""What the page shows of answers, as HTML and chart options; every text of a model is escaped."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from datamodules.completions.thoughts import split_thought
from rod.play.asking import Answer
from rod.play.direction import Steer

_STYLE = Path(__file__).parents[1] / "report"
STYLE = (
    "\n".join((_STYLE / name).read_text(encoding="utf-8") for name in ("colours.css", "tokens.css"))
    + """
body { background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
.nicegui-content { max-width: 80rem; margin: 0 auto; align-items: stretch; }
body, body.body--dark { --q-primary: var(--link) !important; }
body .q-btn.bg-primary.text-white, body .q-btn.bg-primary .block { color: var(--paper) !important; }
h1 { font-size: 1.5rem; font-weight: 600; line-height: 1.3; margin: 0; }
h2 { font-size: 1.05rem; font-weight: 600; line-height: 1.3; margin: 0 0 .25rem; overflow-wrap: anywhere; }
.note { color: var(--muted); font-size: .9rem; overflow-wrap: anywhere; }
.answers { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); }
.answer { background: var(--card); border: 1px solid var(--grid); border-radius: .4rem; padding: .75rem 1rem; }
.answer .said { white-space: pre-wrap; overflow-wrap: anywhere; min-height: 3rem; }
.answer .thought { color: var(--muted); }
.bar { height: .3rem; background: var(--grid); border-radius: 2px; margin: .35rem 0; }
.bar div { height: 100%; background: var(--blue); border-radius: 2px; }
.q-uploader__header { color: var(--paper); }
.curve svg text { fill: var(--ink) !important; stroke: none !important; }
.curve svg [stroke="#0072b2"] { stroke: var(--blue); }
.curve svg [fill="#0072b2"] { fill: var(--blue); }
.curve svg [stroke="#d55e00"] { stroke: var(--vermilion); }
.curve svg [fill="#d55e00"] { fill: var(--vermilion); }
.curve svg [fill="#fff"] { fill: var(--paper); }
.curve svg [stroke="#808080"] { stroke: var(--muted); }
"""
)
"""Style of the page, and of the chart, which is drawn as SVG so that its colours follow the theme."""
UPLOAD = """
<div class="row items-center no-wrap q-pa-sm">
  <label class="col relative-position q-uploader__title">Drop a direction file<q-uploader-add-trigger /></label>
  <q-btn flat dense icon="add" aria-label="Choose a direction file" @click="props.pickFiles" />
</div>
"""
"""The head of the field for a file: Quasar's own has a field and a button without names, one inside of the other."""


def counts(answer: Answer, longest: int, told: str) -> str:
    """A line about an answer: tokens, whether it is cut off, how its result compares; and a bar of its length."""
    number = len(answer.token_ids)
    parts = [f"{number} tokens" if number != 1 else "1 token"]
    if answer.finish == "length":
        parts.append("cut off")
    if answer.finish and answer.found is not None:
        parts.append(f"answer {escape(answer.found)}")
    if told:
        parts.append(told)
    if answer.first_after is not None and answer.finish:
        parts.append(f"first token after {answer.first_after:.2f} s")
    width = round(100 * number / max(1, longest))
    return f'{" · ".join(parts)}<div class="bar"><div style="width:{width}%"></div></div>'


def text_of(answer: Answer) -> str:
    """The text so far, a thought apart from the answer, or tokens with gates once they are known."""
    if answer.gates:
        prompt, said = answer.gates[: answer.n_prompt], answer.gates[answer.n_prompt :]
        return f'<p class="gates">{tokens(prompt)}</p><p class="gates">{tokens(said)}</p>'
    split = split_thought(answer.text)
    thought = f'<span class="thought">{escape(split.thought)}</span>\n' if split.thought else ""
    return thought + escape(split.answer or "")


def tokens(gates: Sequence[tuple[str, float, float]]) -> str:
    """Tokens with a bar above for the glad gate and a bar below for the unwilling one."""
    return "".join(
        f'<span class="token" style="--g:{100 * glad:.0f}%;--u:{100 * unwilling:.0f}%" '
        f'title="glad {glad:.2f}, unwilling {unwilling:.2f}">{escape(text).replace(chr(10), "⏎")}</span>'
        for text, glad, unwilling in gates
    )


def curve(steer: Steer, alpha: float) -> dict[str, Any]:
    """The calibration as a chart: length and accuracy by strength, and a line at the current one."""
    points = steer.curve
    grid = {
        "axisLine": {"onZero": False, "lineStyle": {"color": "#808080"}},
        "splitLine": {"lineStyle": {"color": "#80808050"}},
        "nameLocation": "middle",
    }
    line = {
        "symbol": "none",
        "label": {"formatter": "now"},
        "lineStyle": {"color": "#808080"},
        "data": [{"xAxis": alpha}],
        "animation": False,
    }
    names = {"length (share of the original)": "length_ratio", "accuracy (share of right answers)": "accuracy"}
    return {
        "aria": {"enabled": True},
        "animation": False,
        "color": ["#0072b2", "#d55e00"],
        "grid": {"left": 55, "right": 20, "top": 35, "bottom": 40},
        "legend": {"top": 0},
        "tooltip": {"trigger": "axis"},
        "xAxis": {
            "type": "value",
            "name": "strength of steering",
            "nameGap": 25,
            "min": steer.strongest,
            "max": steer.weakest,
            **grid,
        },
        "yAxis": {
            "type": "value",
            "name": "share",
            "nameGap": 35,
            "min": 0,
            "max": max(1, *(math.ceil(one.length_ratio) for one in points)),
            **grid,
        },
        "series": [
            {
                "type": "line",
                "name": name,
                "symbol": symbol,
                "symbolSize": 8,
                "data": [[one.alpha, round(getattr(one, key), 3)] for one in points],
                **({"markLine": line} if key == "length_ratio" else {}),
            }
            for (name, key), symbol in zip(names.items(), ("circle", "rect"), strict=True)
        ],
    }


def nearest(steer: Steer, alpha: float) -> str:
    """What the calibration measured nearest to a strength, in words; empty without a calibration."""
    if not steer.curve:
        return ""
    one = min(steer.curve, key=lambda measured: abs(measured.alpha - alpha))
    return f"Measured at {one.alpha:g}: length {one.length_ratio:.2f} of the original, accuracy {one.accuracy:.1%}."


LEGEND = (
    f'<p class="note">{tokens([("bar above", 1, 0)])} the glad adapter\'s weight, {tokens([("bar below", 0, 1)])} the '
    "unwilling one's: means over the layers. First the prompt, then the answer.</p>"
)
