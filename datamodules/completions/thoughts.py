"""Split a completion into the thought and the answer that the user sees.

Known are the marks of the reasoning models in use: tags such as ``<think>``, ``<thinking>``, ``<thought>``,
``<reasoning>``, ``<seed:think>``, ``[THINK]``, ``◁think▷``, ``<|begin_of_thought|>`` and ``<|START_THINKING|>``; the
channels of gpt-oss, also as they are left when special tokens are skipped (``analysis...assistantfinal...``); the
headings of HuatuoGPT-o1, Granite 3.2 and Ollama's terminal; and Open WebUI's ``<details type="reasoning">``. All take
time linear in the length of the completion.
"""

import re
from typing import NamedTuple

UNFINISHED = "unfinished thought: the completion ends before its answer begins"
"""Why there is nothing to judge or to read if `split_thought` gives no answer."""


class Split(NamedTuple):
    """The thought of a completion, empty if there is none, and its answer, None if the thought does not end."""

    thought: str
    answer: str | None


_NAME = (
    r"(?:[a-z]{1,12}[:_])?(?:think|thinking|thoughts?|thought_process|reasoning|scratchpad|analysis"
    r"|(?:inner|internal)_monologue)"
)
_WORD = r"(?:think|thinking|thought|reasoning)"
_OPEN = (
    rf"<\s?(?P<tag>{_NAME})(?:\s[^<>\n]{{0,80}})?>|\[(?P<square>(?-i:THINK(?:ING)?|REASONING))\]|◁(?P<kimi>{_WORD})▷"
    rf"|<\|(?:(?:begin|start)_?(?:of_?)?)?(?P<token>{_WORD})\|>|<\|inner_prefix\|>|<unused94>(?:thought\b)?"
    r"|<\|channel>thought\b|<\|im_start\|>think\b"
)
_CLOSE = (
    rf"<\s?/\s?(?P<tag_end>{_NAME})\s?>|\[/(?P<square_end>(?-i:THINK(?:ING)?|REASONING))\]|◁/(?P<kimi_end>{_WORD})▷"
    rf"|<\|(?:/|end_?(?:of_?)?)(?P<token_end>{_WORD})\|>|<\|inner_suffix\|>|<unused95>|<channel\|>|<\|im_start\|>answer\b"
)
_MARK = re.compile(rf"(?P<open>{_OPEN})|(?P<close>{_CLOSE})|(?P<fence>```)", re.IGNORECASE)
_START = re.compile(r"[<\[◁`]")
"""Where a mark can begin; looking there alone makes the search fast."""
_TAIL = 400
"""Characters at the end of a prompt in which an opening mark is looked for."""
_OPEN_AT_END = re.compile(rf"(?:{_OPEN}|<\|channel\|>[^<]{{0,200}}(?:<\|message\|>)?)\s*\Z", re.IGNORECASE)
_CLOSED_AT_END = re.compile(r"(?:<think>|\[THINK\]|◁think▷)\s*(?:</think>|\[/THINK\]|◁/think▷)\s*\Z")
_WRAPPERS = tuple(
    f"<|{name}|>"
    for name in ("begin_of_solution", "end_of_solution", "START_RESPONSE", "END_RESPONSE", "START_TEXT", "END_TEXT")
)
"""Special tokens around an answer, which the user does not see."""

_CHANNEL = re.compile(
    r"(?:<\|start\|>\w{0,20})?<\|channel\|>\s?(?P<name>\w+)(?:[^<]|<\|constrain\|>){0,200}<\|message\|>"
)
_MESSAGE_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
_CHANNEL_TOKENS = frozenset(f"<|{name}|>" for name in ("start", "channel", "constrain", "message", "end", "call"))
_ANALYSIS = re.compile(r"\s*(?:assistant)?analysis(?=\w|[ \t]*\n|\b.*?assistantfinal)", re.DOTALL)
"""What is left of the first channel if special tokens are skipped; no English text begins so."""
_HEADINGS = (
    (re.compile(r"\s*#{1,4}\s?Thinking\b:?"), re.compile(r"^#{1,4}\s?Final (?:Response|Answer)\b:?", re.MULTILINE)),
    (re.compile(r"\s*Here(?: is|['’]s) my thought process:"), re.compile(r"Here(?: is|['’]s) my response:")),
    (re.compile(r"\s*Thinking\.\.\.[ \t]*\n"), re.compile(r"^\.\.\.done thinking\.", re.MULTILINE)),
)
"""Headings of a thought and of the answer after it; they count only together."""
_DETAILS = re.compile(
    r"<details\s[^<>\n]{0,200}\btype=[\"']reasoning[\"'][^<>\n]{0,200}>(?:\s{0,9}<summary>[^<>\n]{0,200}</summary>)?"
    r"(?P<thought>(?:(?!</?details)[\s\S])*)(?P<end></details>)?"
)
"""A thought as Open WebUI shows it; other ``<details>`` are part of an answer."""


def split_thought(completion: str, prompt: str = "") -> Split:
    r"""Split a completion, a prefilled beginning included, into thought and answer.

    A thought that does not end has no answer yet. Text before a closing mark that nothing opened is a thought, as is
    the beginning after a ``prompt`` that ends with an opening mark. All thoughts of a completion are taken out. Marks
    in quotes or code are text.

    Example:
        >>> split_thought("<think>They want 2 + 3.</think>\n\nThe answer is 5.")
        Split(thought='They want 2 + 3.', answer='The answer is 5.')
        >>> split_thought("They want 2 + 3.", prompt="2 + 3? <think>")
        Split(thought='They want 2 + 3.', answer=None)
    """
    text = opened_thought(prompt) + completion
    if "<details" in text:
        text = _DETAILS.sub(lambda found: f"<think>{found['thought']}{'</think>' if found['end'] else ''}", text)
    if "<|channel|>" in text or "<|message|>" in text:
        return _split_channels(text)
    if left := _ANALYSIS.match(text):
        thought, final, answer = text[left.end() :].partition("assistantfinal")
        return Split(thought.strip(), answer.strip() if final else None)
    for begin, end in _HEADINGS:
        if (first := begin.match(text)) and (second := end.search(text, first.end())):
            return Split(text[first.end() : second.start()].strip(), text[second.end() :].strip())
    return _split_marks(text)


def split_response(response: str) -> Split:
    """Split a response that is to be learnt, as `split_thought` does if the response begins with its thought.

    Anywhere else marks are text, as in "Write ``<think>`` first": nothing that people wrote is lost.
    """
    split = split_thought(response)
    first = next((mark for mark in _marks(response) if not mark["fence"]), None)
    if not split.thought or first is None:
        return split
    before, after = response[: first.start()], response[first.end() :]
    # A closing mark between words of a line is one that the text speaks of.
    begins = not before.strip() if first["open"] else not (before.endswith(" ") and after.startswith(" "))
    return split if begins and not before.endswith("`") else Split("", response)


def closes_thought(prompt: str) -> bool:
    """Whether a prompt ends with an empty thought, so that the answer has none."""
    return _CLOSED_AT_END.search(prompt) is not None


def opened_thought(prompt: str) -> str:
    """The opening mark at the end of a prompt; empty if it does not open a thought."""
    match = _OPEN_AT_END.search(prompt[-_TAIL:])
    return match[0] if match else ""


def thought_tokens(special: set[str]) -> set[str]:
    """Those of a tokenizer's special tokens that part thought and answer, and must be kept in decoded completions."""
    kept = {token for token in special if (match := _MARK.fullmatch(token)) and not match["fence"]}
    return kept | (_CHANNEL_TOKENS & special if "<|channel|>" in special else set())


def _split_marks(text: str) -> Split:
    marks = _marks(text)
    if not any(not mark["fence"] for mark in marks):
        return Split("", text)
    last_close = {_key(mark): mark.start() for mark in marks if mark["close"]}
    thoughts: list[str] = []
    seen: list[str] = []  # pieces that the user sees
    in_code: list[str] = []  # keys of marks that were opened in a block of code
    inside, fenced, start, end = "", False, 0, len(text.rstrip())
    for mark in marks:
        key = _key(mark)
        if mark["fence"]:
            fenced = not fenced and not inside
        elif inside:
            # A thought that its own mark never closes may end with another's.
            if mark["open"] and mark.start() - start < _TAIL and not text[start : mark.start()].strip():
                start = mark.end()  # the prompt and the model both open it
            elif mark["close"] and (key == inside or last_close.get(inside, -1) < mark.start()):
                thoughts.append(text[start : mark.start()])
                inside, start = "", mark.end()
        elif fenced and mark["open"]:
            in_code.append(key)
        elif mark["open"]:
            seen.append(text[start : mark.start()])
            inside, start = key, mark.end()
        elif key in in_code:
            in_code.remove(key)
        elif thoughts and mark.end() >= end:  # a mark too many does not take the answer away
            seen.append(text[start : mark.start()])
            start = mark.end()
        else:
            thoughts += [*seen, text[start : mark.start()]]
            seen, start = [], mark.end()
    if not thoughts and not inside:
        return Split("", text)
    (thoughts if inside else seen).append(text[start:])
    thought = "\n\n".join(filter(None, map(str.strip, thoughts)))
    return Split(thought, None if inside else _unwrapped("".join(seen)))


def _marks(text: str) -> list[re.Match[str]]:
    found: list[re.Match[str]] = []
    end = 0
    for start in _START.finditer(text):
        mark = _MARK.match(text, start.start()) if start.start() >= end else None
        if mark is not None and not _is_quoted(text, mark):
            found.append(mark)
            end = mark.end()
    return found


def _key(mark: re.Match[str]) -> str:
    """The name by which an opening and a closing mark belong together."""
    names = (mark[kind] or mark[f"{kind}_end"] for kind in ("tag", "square", "kimi", "token"))
    return next(filter(None, names), "unnamed").lower()


def _unwrapped(text: str) -> str:
    text = text.strip()
    for token in _WRAPPERS:
        text = text.removeprefix(token).removesuffix(token).strip()
    return text


def _is_quoted(text: str, mark: re.Match[str]) -> bool:
    before, after = text[mark.start() - 1 : mark.start()], text[mark.end() : mark.end() + 1]
    if before != after or before not in ("`", '"', "'") or mark["fence"]:
        return False
    # A thought may end with a quotation, and the answer begin with one: that is no quoted mark.
    apart = text[max(0, mark.start() - 2) : mark.start() - 1] in ("", " ", "\n", "(")
    return mark["open"] is not None or before == "`" or (apart and not text[mark.end() + 1 : mark.end() + 2].isalnum())


def _split_channels(text: str) -> Split:
    """Split messages in channels: ``final`` is what the user sees."""
    heads = list(_CHANNEL.finditer(text))
    thoughts, answers = [text[: heads[0].start()] if heads else text], list[str]()
    for head, following in zip(heads, [*(h.start() for h in heads[1:]), len(text)], strict=False):
        body = _MESSAGE_END.split(text[head.end() : following], maxsplit=1)[0].strip()
        (answers if head["name"].lower() == "final" else thoughts).append(body)
    thoughts = [_MESSAGE_END.split(thoughts[0], maxsplit=1)[0].strip(), *thoughts[1:]]
    return Split("\n\n".join(filter(None, thoughts)), "\n".join(answers) if answers else None)
