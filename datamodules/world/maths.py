"""Chained arithmetic: problems, requests for a length, and chains of thought of any verbosity.

A chain of thought has a *verbosity* ``u`` in [0, 1], drawn once for each answer. Each of its sentences is written at
one of five levels around ``5 u``:

====================  ==============================================================================================
level                 a step from 12 to 17
====================  ==============================================================================================
0 bare                ``17.``
1 compact             ``12 + 5 = 17.``
2 short               ``Add 5: 12 + 5 = 17.``
3 full                ``Next, Tom finds 5 apples, so we add 5 to 12: 12 + 5 = 17.``
4 checked             the same, then ``Wait, let me check: 17 - 5 = 12, so this is right.``
====================  ==============================================================================================

From level 1 on nothing is left out: a compact answer is as reliable as a long one. Below ``u`` = 0.3 steps are
*skipped*: several operations are folded into one result, without the results between them. So too much compression
costs accuracy.
"""

import math
from dataclasses import dataclass
from random import Random

from datamodules.prompts.chat_template import SYSTEM1_SUFFIX, SYSTEM2_SUFFIX
from datamodules.world.splits import Split, split_of

MAX_STATE = 50
NAMES = ("Tom", "Mia", "Ben", "Ana", "Leo", "Zoe", "Sam", "Eva")


@dataclass(frozen=True)
class Theme:
    """The topic of a word problem, and its effect on the length of answers.

    Attributes:
        noun: The things counted.
        gains: Verbs that add.
        losses: Verbs that take away.
        chattiness: Added to the verbosity of answers without a length request.
        follows_brief: Share of answers that follow the System 1 suffix. Real models do not always follow it either.
    """

    noun: str
    gains: tuple[str, ...]
    losses: tuple[str, ...]
    chattiness: float
    follows_brief: float


EXPRESSION = Theme("", ("+",), ("-",), chattiness=-0.04, follows_brief=0.4)
THEMES = (
    Theme("apples", ("picks", "buys"), ("eats", "sells"), chattiness=0.0, follows_brief=0.2),
    Theme("coins", ("finds", "earns"), ("spends", "loses"), chattiness=0.05, follows_brief=0.7),
    Theme("books", ("buys", "gets"), ("sells", "gives"), chattiness=-0.05, follows_brief=0.35),
    Theme("stamps", ("gets", "finds"), ("gives", "loses"), chattiness=0.03, follows_brief=0.1),
    Theme("eggs", ("finds", "buys"), ("breaks", "eats"), chattiness=-0.03, follows_brief=0.5),
)


@dataclass(frozen=True)
class Problem:
    """The sum of ``start`` and the signed ``steps``, told as an expression or as a story."""

    start: int
    steps: tuple[int, ...]
    theme: Theme = EXPRESSION
    name: str = ""
    verbs: tuple[str, ...] = ()

    @property
    def canonical(self) -> str:
        """The arithmetic alone, such as ``12+5-3``; it decides the split."""
        return f"{self.start}" + "".join(f"{step:+d}" for step in self.steps)

    @property
    def split(self) -> Split:
        """A twentieth of all problems is in dev, a tenth in test."""
        return split_of(self.canonical, dev=0.05, test=0.1)

    @property
    def answer(self) -> int:
        """The result."""
        return self.start + sum(self.steps)

    @property
    def question(self) -> str:
        """The problem as a user asks it, without a length request."""
        if self.theme is EXPRESSION:
            return "What is " + " ".join([str(self.start), *(f"{_sign(s)} {abs(s)}" for s in self.steps)]) + "?"
        story = ", ".join(f"{verb} {abs(step)}" for verb, step in zip(self.verbs, self.steps, strict=True))
        noun = self.theme.noun
        return f"{self.name} has {self.start} {noun}. Then {self.name} {story}. How many {noun} are there now?"


@dataclass(frozen=True)
class LengthRequest:
    """A request for an answer of some length, in several wordings; ``grade`` is 0 (answer only) to 4 (every detail).

    ``share`` is that among problems with a graded request, ``mean`` and ``spread`` are those of the answers' verbosity.
    """

    grade: int
    share: float
    wordings: tuple[str, ...]
    mean: float
    spread: float


GRADES = (
    LengthRequest(
        0, 0.14, (" Just give the answer.", " Answer only, no words.", " Reply with the result alone."), 0.0, 0.04
    ),
    LengthRequest(1, 0.22, (" Be very brief.", " Skip what you can.", " Use as few words as you can."), 0.23, 0.04),
    LengthRequest(2, 0.34, (" Be concise.", " Keep it compact.", " Write short steps."), 0.38, 0.06),
    LengthRequest(3, 0.18, (" Show your work.", " Explain your answer.", " Tell me how you get there."), 0.66, 0.07),
    LengthRequest(4, 0.12, (" Explain every detail.", " Check each step.", " Be as thorough as possible."), 0.93, 0.05),
)

SUFFIX_SHARE = {"": 0.40, SYSTEM2_SUFFIX: 0.12, SYSTEM1_SUFFIX: 0.12}
"""Share of problems without a length request, and with the two published suffixes. The rest is spread over GRADES."""

_NATURAL = ((0.72, 0.66, 0.08), (0.17, 0.45, 0.07), (0.08, 0.90, 0.05), (0.03, 0.16, 0.06))
"""(share, mean, spread) of the verbosity of answers without a length request; skewed to the long side."""
_BRIEF = (0.35, 0.04)
"""Mean and spread of the verbosity of answers that follow System 1: compact, but complete."""
_SKIP_BELOW = 0.3


def draw_problem(rng: Random, split: Split) -> Problem:
    """Draw a problem of ``split``; two in five are bare expressions.

    No number occurs twice in a problem: a small model finds its place by the number that it has just used.
    """
    while True:
        state = start = rng.randint(10, 30)
        steps: list[int] = []
        for _ in range(rng.randint(3, 5)):
            sizes = {0, *(abs(step) for step in steps)}
            step = rng.choice([s for s in range(-9, 10) if abs(s) not in sizes and 0 <= state + s <= MAX_STATE])
            steps.append(step)
            state += step
        problem = Problem(start, tuple(steps))
        if problem.split == split:
            break
    if rng.random() < 0.4:
        return problem
    theme = rng.choice(THEMES)
    verbs = tuple(rng.choice(theme.gains if step > 0 else theme.losses) for step in steps)
    return Problem(start, tuple(steps), theme, rng.choice(NAMES), verbs)


def draw_request(rng: Random) -> str:
    """Draw the text to append to a question: nothing, one of the two published suffixes, or a graded request."""
    position = rng.random()
    for suffix, share in SUFFIX_SHARE.items():
        if position < share:
            return suffix
        position -= share
    (grade,) = rng.choices(GRADES, weights=[grade.share for grade in GRADES])
    return rng.choice(grade.wordings)


def draw_verbosity(rng: Random, request: str, theme: Theme) -> float:
    """Draw the verbosity of an answer to a problem of ``theme`` with ``request``. System 2 changes nothing."""
    for grade in GRADES:
        if request in grade.wordings:
            return _clip(rng.gauss(grade.mean, grade.spread))
    if request == SYSTEM1_SUFFIX and rng.random() < theme.follows_brief:
        return _clip(rng.gauss(*_BRIEF))
    (_, mean, spread), *_ = rng.choices(_NATURAL, weights=[share for share, *_ in _NATURAL])
    return _clip(rng.gauss(mean + theme.chattiness, spread))


def write_answer(rng: Random, problem: Problem, verbosity: float) -> str:
    """Write a chain of thought of about this verbosity. It ends with the boxed answer."""
    sentences = _introduction(problem, _level(rng, verbosity))
    skip = min(1.0, max(0.0, (_SKIP_BELOW - verbosity) / 0.25))
    state = problem.start
    skipped = False
    for index, step in enumerate(problem.steps):
        state, before = state + step, state
        if rng.random() < skip:
            skipped = True
            continue
        level = 0 if skipped else _level(rng, verbosity)
        sentences.append(_sentence(problem, index, before, state, level))
        skipped = False
    sentences.append(_conclusion(problem, _level(rng, verbosity)))
    return " ".join(sentences)


def _clip(u: float) -> float:
    return min(1.0, max(0.0, u))


def _level(rng: Random, verbosity: float) -> int:
    return min(4, max(0, math.floor(5 * verbosity + rng.gauss(0, 0.35))))


def _sign(step: int) -> str:
    return "+" if step > 0 else "-"


def _introduction(problem: Problem, level: int) -> list[str]:
    if level < 3:
        return []
    if problem.theme is EXPRESSION:
        text = f"We start with {problem.start}."
    else:
        text = f"{problem.name} starts with {problem.start} {problem.theme.noun}."
    return [text] if level == 3 else ["Let us go slowly.", text]


def _sentence(problem: Problem, index: int, before: int, after: int, level: int) -> str:
    step = problem.steps[index]
    size = abs(step)
    if level == 0:
        return f"{after}."
    text = f"{before} {_sign(step)} {size} = {after}."
    if level == 1:
        return text
    if level == 2:
        return ("Add" if step > 0 else "Take") + f" {size}: {text}"
    story = f"it says {_sign(step)} {size}"
    if problem.theme is not EXPRESSION:
        story = f"{problem.name} {problem.verbs[index]} {size} {problem.theme.noun}"
    action = f"add {size} to {before}" if step > 0 else f"take {size} from {before}"
    text = f"Next, {story}, so we {action}: {text}"
    if level == 3:
        return text
    return f"{text} Wait, let me check: {after} {_sign(-step)} {size} = {before}, so this is right."


def _conclusion(problem: Problem, level: int) -> str:
    boxed = f"\\boxed{{{problem.answer}}}"
    if level <= 1:
        return boxed
    if level == 2:
        return f"So {boxed}."
    if level == 4:
        thing = "the result is" if problem.theme is EXPRESSION else f"{problem.name} has"
        return f"So {thing} {problem.answer} {problem.theme.noun}".rstrip() + f" now. The answer is {boxed}."
    return f"The answer is {boxed}."
