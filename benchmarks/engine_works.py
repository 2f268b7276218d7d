"""The works that engines are compared on."""

import random
from dataclasses import dataclass

from benchmarks.generation import Job, Texts
from llm_modules.s3cot import Positions

STEERED, AT_END, UNSTEERED = "(c) six strengths", "(d) as (c), last token", "(e) as (c), unsteered"
ALPHAS = (0.0, -0.1, -0.2, -0.3, -0.4, -0.5)


@dataclass(frozen=True)
class Work:
    """A job, and the strength of each row in the middle layers; None without steering."""

    name: str
    job: Job
    strengths: list[float] | None = None
    positions: Positions = "all"


def works(vocab: int, rows: int, tokens: int, slots: int) -> list[Work]:
    draw = random.Random(0)

    def prompts(number: int) -> Texts:
        return [[draw.randrange(3, vocab) for _ in range(draw.randint(40, 80))] for _ in range(number)]

    low = 2 * tokens / 11
    lengths = [round(low + row * 9 * low / (rows - 1)) for row in range(rows)]
    draw.shuffle(lengths)
    questions = [prompt for prompt in prompts(rows // len(ALPHAS)) for _ in ALPHAS]
    steered = Job(questions, [tokens] * len(questions), slots)
    strengths = list(ALPHAS) * (rows // len(ALPHAS))
    return [
        Work("(a) equal lengths", Job(prompts(rows), [tokens] * rows, slots)),
        Work("(b) tenfold lengths", Job(prompts(rows), lengths, slots)),
        Work(STEERED, steered, strengths),
        Work(AT_END, steered, strengths, "last"),
        Work(UNSTEERED, steered),
    ]
