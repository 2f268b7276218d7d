"""The words of a refusal, for data that are made and for models that are taken apart.

To *measure* refusals, use the judges (`llm_modules.judges`). Their lists of phrases are not these: they are kept as
published, so that rates can be compared.
"""

import re

from datamodules.completions.thoughts import split_thought

_WORDS = r"sorry|apologi[sz]e|can(?:no|['’])t|can not|won['’]t|will not|unable to"

REFUSAL = rf"\b({_WORDS})\b"
"""Regular expression of the plain words of a refusal, in any case (ours): for `rod swap` and the embedded world.

It is narrower than `ANY_REFUSAL`, because there a word too many would hide what is measured: the share of refusals with
some modules swapped, or of answers to requests whose right answers have none of these words.
"""
ANY_REFUSAL = rf"\b({_WORDS}|not able to|as an ai|not appropriate|unethical|against my (?:guidelines|programming))\b"
"""Regular expression that also finds a refusal in other words, in any case (ours): for `rod pairs`.

It takes many an answer for a refusal. That costs little there: of more answers than are needed, one is left out.
"""


def is_refusal(completion: str, rule: str | re.Pattern[str] = REFUSAL, prompt: str = "") -> bool:
    """Whether the answer of a completion matches a rule; a thought is not read, and an unfinished one is no refusal.

    A rule that is text matches in any case. The end of the rendered ``prompt`` may open a thought.

    Example:
        >>> is_refusal("I'm unable to help."), is_refusal("<think>I can't do this.</think>Take the key.")
        (True, False)
    """
    answer = split_thought(completion, prompt).answer
    return answer is not None and _compiled(rule).search(answer) is not None


def _compiled(rule: str | re.Pattern[str]) -> re.Pattern[str]:
    return re.compile(rule, re.IGNORECASE) if isinstance(rule, str) else rule
