"""Makes the pairs of requests and responses that MoGU learns from."""

import random
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from datamodules.completions.refusals import ANY_REFUSAL, is_refusal
from datamodules.completions.thoughts import split_thought
from datamodules.errors import InputError
from datamodules.mogu.records import Attack, ResponsePair
from datamodules.prompts.contrast_data import ContrastPair
from datamodules.records.kinds import Instruction, Question, Trace
from datamodules.records.requests import transcript
from datamodules.records.same_text import squeeze
from datamodules.records.turns import system_turn

REFUSALS = (
    "I'm sorry, but I cannot help with that.",
    "I cannot assist with this request.",
    "Sorry, I will not do that.",
    "I'm sorry, but I am not able to answer that.",
    "No, I will not help with this.",
    "I cannot provide that.",
)
"""Refusals for requests to which the base model gives none (ours)."""


OPENING = "Sure, here is"
"""Opening for malicious requests that come without one (ours)."""


@dataclass(frozen=True)
class Dropped:
    """A request without a pair, and the reason."""

    id: str
    prompt: str
    malicious: bool
    reason: str


@dataclass(frozen=True)
class Pairs:
    """The pairs and what is left."""

    train: list[ResponsePair] = field(repr=False)  # as many benign as malicious
    val: list[ResponsePair] = field(repr=False)  # as many of each, too, to choose checkpoints on
    held_out: list[Attack] = field(repr=False)  # malicious requests in neither, for tests
    dropped: list[Dropped] = field(repr=False)
    report: dict[str, int | dict[str, int]]  # counts by name


def make_pairs(
    answers: Sequence[Trace],
    attacks: Sequence[Attack],
    *,
    n_train: int,
    n_val: int,
    refusals: Sequence[str] = REFUSALS,
    rejections: Sequence[Trace] = (),
    other_malicious: Sequence[Question] = (),
    refusal_rule: str = ANY_REFUSAL,
    seed: int = 0,
) -> Pairs:
    """Pair requests with responses (paper, sec. 3.1), and split the pairs.

    - Benign requests: the base model's own answer, dropped if it is a refusal or cut off; and a written refusal.
    - Malicious requests: the affirmative opening; and the base model's own refusal, or a written one if it gives none.

    A written refusal may name the request with ``{prompt}``. Of requests that `squeeze` makes equal, one is taken; a
    request of both classes is malicious.

    Args:
        answers: The base model's answers to benign requests.
        attacks: Malicious requests with openings.
        n_train: Pairs of each class to train on (paper: 300); fewer of both where one has fewer.
        n_val: Pairs of each class to choose checkpoints on.
        refusals: Written refusals.
        rejections: The base model's answers to the malicious requests; complete ones that are refusals are used.
        other_malicious: Malicious requests of other sources, without openings (ours). All are trained on, in place of
            as many of ``attacks``; those for validation and the held-out ones are of ``attacks``.
        refusal_rule: Regular expression; an answer with a match is a refusal, whatever the thought before it says.
        seed: Seed of the split and of the choice of refusals.

    Raises:
        InputError: A number is too small, the rule is no regular expression, or a class is empty.
    """
    rule = _check_options(n_train, n_val, refusals, refusal_rule)
    others = [
        Attack(f"other/{request.id}", request.question, OPENING, earlier=request.earlier) for request in other_malicious
    ]
    known = {squeeze(attack.asked) for attack in (*attacks, *others)}
    benign, dropped = _benign(answers, known, rule, refusals, seed)
    own = {
        trace.asked: trace.completion.strip()
        for trace in rejections
        if trace.finish_reason == "stop" and is_refusal(trace.completion, rule, trace.prompt)
    }
    seen: set[str] = set()
    malicious, more = _malicious(attacks, own, refusals, seed, seen)
    added, still_more = _malicious(others, own, refusals, seed, seen)
    dropped += [*more, *still_more]
    for name, pairs in (("benign", benign), ("malicious", malicious)):
        if not pairs:
            reasons = ", ".join(f"{reason}: {n}" for reason, n in Counter(d.reason for d in dropped).items())
            raise InputError(f"pairs: no {name} request is left ({reasons or 'none was given'}); give others")
    random.Random(f"{seed}/split").shuffle(benign)
    random.Random(f"{seed}/split").shuffle(malicious)
    total = min(len(benign), len(malicious) + len(added), n_train + n_val)
    if total < n_train + n_val:
        n_val = min(n_val, max(1, total // 5), total - 1)  # one at least, to choose checkpoints on
    n_train = min(n_train, total - n_val)
    n_own = n_train - len(added)
    if n_own < 1:
        raise InputError(
            f"--other_malicious: {len(added)} requests leave no place for those of --malicious among {n_train}; give "
            "fewer, or more benign answers, or a larger --n_train"
        )
    by_id = {attack.id: attack for attack in attacks}
    used = {pair.id for pair in malicious[: n_own + n_val]}
    held_out = [by_id[pair.id] for pair in malicious if pair.id not in used]
    report: dict[str, int | dict[str, int]] = {
        "benign": len(answers),
        "malicious": len(attacks),
        "other_malicious": len(added),
        "train_each": n_train,
        "val_each": n_val,
        "held_out": len(held_out),
        "benign_left_over": len(benign) - total,
        "own_refusals": sum(_own(own, pair) is not None for pair in malicious),
        "dropped": dict(Counter(d.reason for d in dropped)),
    }
    train = benign[:n_train] + malicious[:n_own] + added
    val = benign[n_train : n_train + n_val] + malicious[n_own : n_own + n_val]
    return Pairs(train, val, held_out, dropped, report)


def drawn(requests: Sequence[Question], n: int | None, seed: int = 0) -> Sequence[Question]:
    """``n`` of the requests, in their order; all if it is None. InputError if there are fewer."""
    if n is None:
        return requests
    if not 1 <= n <= len(requests):
        raise InputError(f"--n_other: must be between 1 and {len(requests)}, the requests of the file; is {n}")
    chosen = sorted(random.Random(f"{seed}/other").sample(range(len(requests)), n))
    return [requests[i] for i in chosen]


def contrast(pairs: Sequence[ResponsePair]) -> list[ContrastPair]:
    """Each malicious request with a benign one: the pairs for a refusal direction."""
    kinds = [[pair for pair in pairs if pair.malicious == kind] for kind in (True, False)]
    return [
        ContrastPair(f"{bad.id}|{good.id}", bad.prompt, good.prompt, bad.system, good.system, bad.earlier, good.earlier)
        for bad, good in zip(*kinds, strict=False)
    ]


def right_responses(pairs: Sequence[ResponsePair]) -> list[Instruction]:
    """Each request with its right response alone, for plain fine-tuning: a refusal if it is malicious."""
    return [Instruction(p.id, p.prompt, p.reject if p.malicious else p.glad, p.system, p.earlier) for p in pairs]


def _check_options(n_train: int, n_val: int, refusals: Sequence[str], rule: str) -> re.Pattern[str]:
    for option, number, least in (("n_train", n_train, 1), ("n_val", n_val, 0)):
        if number < least:
            raise InputError(f"--{option}: must be {least} or more, is {number}")
    if not refusals:
        raise InputError("--refusals: the file is empty; put one refusal on each line")
    try:
        return re.compile(rule, re.IGNORECASE)
    except re.error as error:
        raise InputError(f"--refusal_rule: no regular expression: {error}") from error


def _benign(
    answers: Sequence[Trace], malicious: Collection[str], rule: re.Pattern[str], refusals: Sequence[str], seed: int
) -> tuple[list[ResponsePair], list[Dropped]]:
    pairs: list[ResponsePair] = []
    dropped: list[Dropped] = []
    seen: set[str] = set()
    uses = Counter[str]()
    for trace in answers:
        reason, request = "", squeeze(trace.asked)
        answer = split_thought(trace.completion, trace.prompt).answer
        if request in malicious:
            reason = "benign: it is among the malicious requests too"
        elif is_refusal(trace.completion, rule, trace.prompt):
            reason = "benign: the base model refuses"
        elif trace.finish_reason != "stop" or answer is None:
            reason = "benign: the answer does not come to its end"
        elif not answer.strip():
            reason = "benign: the answer is empty"
        elif request in seen:
            reason = "benign: it occurs twice"
        if reason:
            dropped.append(Dropped(trace.question_id, trace.question, False, reason))
            continue
        seen.add(request)
        rejection = _written(refusals, trace.question_id, trace.question, seed)
        uses[trace.id] += 1  # files of answers may have the same ids
        name = f"benign/{trace.id}" + (f"#{uses[trace.id]}" if uses[trace.id] > 1 else "")
        pairs.append(ResponsePair(name, trace.question, False, trace.completion, rejection, earlier=trace.earlier))
    return pairs, dropped


def _malicious(
    attacks: Sequence[Attack], own: Mapping[str, str], refusals: Sequence[str], seed: int, seen: set[str]
) -> tuple[list[ResponsePair], list[Dropped]]:
    pairs: list[ResponsePair] = []
    dropped: list[Dropped] = []
    for attack in attacks:
        request = squeeze(attack.asked)
        if not attack.target.strip() or request in seen:
            reason = "malicious: there is no opening" if not attack.target.strip() else "malicious: it occurs twice"
            dropped.append(Dropped(attack.id, attack.prompt, True, reason))
            continue
        seen.add(request)
        rejection = _own(own, attack) or _written(refusals, attack.id, attack.prompt, seed)
        pairs.append(
            ResponsePair(attack.id, attack.prompt, True, attack.target, rejection, True, attack.system, attack.earlier)
        )
    return pairs, dropped


def _own(own: Mapping[str, str], request: Attack | ResponsePair) -> str | None:
    """The base's refusal of a request; traces have a system prompt among the turns before it."""
    before = system_turn(request.system)
    return own.get(transcript((*before, *request.earlier), request.prompt))


def _written(refusals: Sequence[str], key: str, prompt: str, seed: int) -> str:
    """One of the refusals; a request gets the same one in every run."""
    return random.Random(f"{seed}/{key}").choice(refusals).replace("{prompt}", prompt)
