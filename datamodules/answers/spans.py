r"""Clean spans of text before they are read as answers: strip mark-up and filler words.

Each reader (`choices`, `numbers`) returns the answer, None if the span has none, or ``UNDECIDED`` if the span decides
against giving one. All take time linear in the length of the text: every repetition in the patterns has an upper bound.
"""

import re

UNDECIDED = ""
"""A reader's result for a text that rejects every answer, or gives several."""

MARKUP = re.compile(r"(?<![\d*])\*{1,3}(?=\S)|(?<=\S)\*{1,3}(?![\d*])|_{2,3}|`{1,3}|\\[()\[\]]|[\"'“”‘’]")
TEXT_COMMANDS = r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mbox|emph|operatorname)\s{0,3}"
"""Commands whose argument is text, or reads as if it were."""
BESIDES = r"(?<!if )\b(?:than|not|instead of|as opposed to|over)\s"
"""Words before another option that say that it is not meant: "rather than A or C"."""
OFFERS = (
    r"\b(?:also|too|either|equally|could|might|may|maybe|perhaps|possibly|alternatively|as well|unsure|not sure|torn"
    r"|whether)\b"
)
"""Words of a sentence that offers another option beside the first."""
_COMMAND = re.compile(rf"(?:{TEXT_COMMANDS}|\\f?box(?:ed)?\s{{0,2}})\{{([^{{}}]{{0,300}})\}}")
_FILLER = re.compile(
    r"(?:therefore|thus|then|hence|so|indeed|clearly|actually|(?:most |very |more )?(?:likely|probably)|simply|still"
    r"|now|just|also|definitely|certainly|obviously|surely|exactly|precisely|of course|in fact|given by|equal to"
    r"|(?:going |found |known |believed |supposed |said )?to be|none other than|both|either|option|choice|letter"
    r"|the (?:correct |final )?(?:option|choice|letter|answer)(?: is)?|that of"
    r"|[,:=\s#>~]|-(?=\s))"
    r"(?![A-Za-z])\s{0,4}",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<!\bft)(?<!\blb)(?<!\blbs)(?<!\bhr)(?<!\bhrs)(?<!\bmin)[.!?](?=\s|$)|\n")
_FENCE = re.compile(r"`{2,}(?:[\w+#.-]{1,20}\n(?!`{2,}))?")
_CLOSED_BEFORE = re.compile(r"\A(?:\*{1,3}|`)\s+")
_CLOSING = re.compile(r"\A[^*`]*(?<=[\w.!?])(\*{1,3}|`)(?=[\s.,;:!?]|\Z)")
"""A first mark that can only close: its other half stands before the text."""
_LETTER = r"[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af]"
"""Of scripts with spaces between words: ``f*g*h`` has no marks, and Chinese words stand beside theirs."""
_EMPHASIS = re.compile(
    rf"(?<!{_LETTER})(?<![*`])(\*{{1,3}}|`)(?=[^\s*`])(.{{1,300}}?)(?<=[^\s*`])\1(?![*`])(?!{_LETTER})"
)
_HALF_OF_IT = re.compile(r"\A(?:\*{1,3}|`)\s?|(?:\*{1,3}|`)(?=[.,;:!?]?\Z)")
"""A mark whose other half stands outside of the span."""


def plain(span: str) -> str:
    """The first 400 characters of a span without mark-up."""
    return MARKUP.sub("", without_text_commands(span[:400])).replace("$", "").strip()


def without_text_commands(text: str) -> str:
    r"""The text with the content of ``\text{}``, ``\boxed{}`` and the like in place of the command."""
    for _ in range(3):
        text = _COMMAND.sub(r"\1", text)
    return text


def without_marks(text: str) -> str:
    """The text without fences and pairs of marks, one of which may have begun before the text."""
    text = _CLOSED_BEFORE.sub("", _FENCE.sub("", text).strip())
    closing = _CLOSING.match(text)
    if closing and (closing[1] != "*" or text.count("*") > 2):  # a single star may stand for itself
        text = closing[1] + text
    return _HALF_OF_IT.sub("", _EMPHASIS.sub(r"\2", text).strip()).strip()


def without_filler(text: str) -> str:
    """The text without leading words such as "therefore", "option", "the correct answer is"."""
    for _ in range(6):
        match = _FILLER.match(text)
        if match is None:
            break
        text = text[match.end() :]
    return text.strip()


def sentence(text: str) -> str:
    """The text up to the end of its first sentence."""
    match = _SENTENCE_END.search(text)
    return text[: match.start()] if match else text


REFUSED = re.compile(
    r"(?:none|neither|not (?:listed|given|provided|available|among|one of|any|in|present|a)|cannot be|can't be"
    r"|no correct|missing|unclear|unknown)\b",
    re.IGNORECASE,
)
"""Beginning of a text that rejects every answer."""
