"""Every mark of a thought, closed, unclosed, opened by the prompt, repeated, quoted; and what no thought is."""

import pytest

from datamodules.completions.thoughts import opened_thought, split_thought, thought_tokens

THOUGHT, ANSWER = "I can't do this. No!", "First, get a mask."
MARKS = [
    *((f"<{tag}>", f"</{tag}>") for tag in ("think", "thinking", "thought", "reasoning", "seed:think", "scratchpad")),
    *((f"<{tag}>", f"</{tag}>") for tag in ("analysis", "internal_monologue", "inner_monologue")),
    ("<|startofthought|>", "<|endofthought|>"),
    ("<Thought>", "</Thought>"),
    ('<think budget="9">', "</think >"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|thinking|>", "<|/thinking|>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<|channel>thought\n", "<channel|>"),
    ("<|im_start|>think\n", "<|im_start|>answer\n"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
]


@pytest.mark.parametrize(("begin", "end"), MARKS)
def test_every_mark(begin: str, end: str) -> None:
    whole = f"{begin}\n{THOUGHT}\n{end}\n\n{ANSWER}"
    assert split_thought(whole) == (THOUGHT, ANSWER)
    assert split_thought(f"{begin}{end}{ANSWER}") == ("", ANSWER)
    assert split_thought(f"{begin}{THOUGHT}{end}") == (THOUGHT, ""), "the thought ends, and nothing comes"
    assert split_thought(f"{begin}{THOUGHT}") == (THOUGHT, None), "no answer yet"
    prompt = f"<user>Go on<assistant>{begin}\n"
    assert opened_thought(prompt)
    assert split_thought(f"{THOUGHT}{end}{ANSWER}") == (THOUGHT, ANSWER), "the prompt opened it, though nobody says so"
    assert split_thought(f"{THOUGHT}{end}{ANSWER}", prompt) == (THOUGHT, ANSWER)
    assert split_thought(THOUGHT, prompt) == (THOUGHT, None)
    assert split_thought("", prompt) == ("", None)
    assert split_thought(whole, prompt) == (THOUGHT, ANSWER), "the model opens it once more"
    assert split_thought(ANSWER, f"{begin}\n\n{end}\n\n") == ("", ANSWER), "the prompt closes it, too"
    assert split_thought(ANSWER, f"Write inside {begin} and {end}.<assistant>") == ("", ANSWER)


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("analysisThe user asks for 2+3.assistantfinal5", "The user asks for 2+3.", "5"),
        ("assistantanalysisThe user asks.assistantfinal5", "The user asks.", "5"),
        ("Thinking...\nHm, 2 + 3.\n...done thinking.\n\n5", "Hm, 2 + 3.", "5"),
        (
            '<details type="reasoning" done="true" duration="3">\n<summary>Thought</summary>\n> Hm.\n</details>\n5',
            "> Hm.",
            "5",
        ),
        ('<details type="reasoning">Hm, so', "Hm, so", None),
        ("analysis We add.assistantfinal**5**", "We add.", "**5**"),
        ("analysisWe add, and", "We add, and", None),
        ("analysis\nWe add.\nassistantfinal\n5", "We add.", "5"),
        ("analysis\nWe add", "We add", None),
        ("analysisWe look.assistantcommentary to=functions.sum json{}", None, None),
        ("<|channel|>final<|message|>5<|return|>", "", "5"),
        ("<|channel|>analysis<|message|>Hm.<|end|>", "Hm.", None),
        ("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>fin", "Hm.", None),
        (
            "<|channel|>analysis<|message|>A<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>"
            "json<|message|>{}<|call|><|start|>assistant<|channel|>final<|message|>C<|end|>",
            "A\n\n{}",
            "C",
        ),
        ("<|begin_of_thought|>a<|end_of_thought|>\n<|begin_of_solution|>b<|end_of_solution|>", "a", "b"),
        ("<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>b<|END_RESPONSE|>", "a", "b"),
        ("## Thinking\n\nHm.\n\n## Final Response\n\nYes.", "Hm.", "Yes."),
        ("Here is my thought process:\nHm.\nHere is my response:\nYes.", "Hm.", "Yes."),
    ],
)
def test_channels_and_headings(text: str, thought: str | None, answer: str | None) -> None:
    found = split_thought(text)
    assert found.answer == answer
    assert thought is None or found.thought == thought


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("<think>a</think>b<think>c</think>d", "a\n\nc", "bd"),
        ("<think>a<think>b</think>c</think>d", "a<think>b\n\nc", "d"),
        ("a</think>b</think>c", "a\n\nb", "c"),
        ("<think>a</think>b</think>", "a", "b"),
        ("<thinking>a</think>b", "a", "b"),
        ("<thinking>a <think>b</think> c</thinking>d", "a <think>b</think> c", "d"),
        ("<think>a</think>b<think>c", "a\n\nc", None),
        ('<think>He said "hi"</think>"Hi there."', 'He said "hi"', '"Hi there."'),
        ("'<think>' opens it. So</think>5", "'<think>' opens it. So", "5"),
        ("<think>Shall I write `</think>`?</think>Yes.", "Shall I write `</think>`?", "Yes."),
    ],
)
def test_thoughts_that_are_nested_repeated_or_closed_too_often(text: str, thought: str, answer: str | None) -> None:
    assert split_thought(text) == (thought, answer)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " The answer is 5.\n",
        "I think: <b>5</b>, [thought] no [2]. Analysis of the data: a < b > c.",
        "Analysis: the data are few.",
        "analysis of the data shows nothing",
        "Wrap it in `<think>` and `</think>`.",
        'Models write "<think>" first.',
        "'<think>' opens and '</think>' closes it. 5",
        'Write "<think>" first, then ("</think>"). 5',
        "Thinking... that is what he does. I am done thinking.",
        "<details><summary>More</summary>5</details>",
        "assistant analysis of the data",
        "So:\n```xml\n<think>a</think>\n<answer>b</answer>\n```\nThat is all.",
        "Here's my thought process: 2 + 3 = 5. The answer is 5.",
    ],
)
def test_what_is_no_thought_comes_back_unchanged(text: str) -> None:
    assert split_thought(text) == ("", text)


@pytest.mark.parametrize(
    "unit", ["<think>", "</think>", "<", " ", "```", "<think>a</think>b", "<|channel|>", "analysis "]
)
def test_long_texts_take_no_time(unit: str) -> None:
    split_thought(unit * 20_000)
    split_thought(f"a{unit * 20_000}b", unit * 10)


def test_the_special_tokens_that_must_be_kept() -> None:
    assert thought_tokens({"[THINK]", "[/THINK]", "</s>", "<pad>", "```"}) == {"[THINK]", "[/THINK]"}
    assert thought_tokens({"<|end|>", "<|user|>"}) == set(), "an end of turn of models without channels"
    assert thought_tokens({"<|end|>", "<|channel|>", "<|return|>"}) == {"<|end|>", "<|channel|>"}
