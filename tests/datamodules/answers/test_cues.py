"""Statements of an answer: every common wording is heard, the last counts, and what is hypothetical does not."""

from collections.abc import Sequence

import pytest

from datamodules.answers.rule import AnswerRule

NUMBER, CHOICE, LABEL = AnswerRule("number"), AnswerRule("choice"), AnswerRule("label")
TREES = ("oak", "elm", "ash", "fir")


@pytest.mark.parametrize(
    "statement",
    [
        "Therefore, the answer (arabic numerals) is 12.",
        "Therefore, the answer (in dollars) is $12.",
        "So the answer, in dollars, is $12.",
        "Therefore, the final answer (Arabic Numerals): 12",
        "The answer [a number] is: 12.",
        "**Answer** (number): **12**",
        "final answer: 12",
        "Final Answer = 12",
        "Ans: 12",
        "The answer we get is 12.",
        "The answer in simplest form is 12.",
        "So the answer is going to be 12.",
        "The answer seems to be 12.",
        "Final answer - 12",
        "Final answer → 12",
        "The answer turns out to be 12.",
        "The answer {as a number} is 12.",
        "The answer's 12.",
        "The answer comes to 12.",
        "The answer works out to be 12.",
        "The answer ends up being 12.",
        "The answer would therefore be 12.",
        "The answer should then be 12.",
        "最终答案是：12。",
        "答案为12元。",
        "答案：１２",
    ],
)
def test_the_last_statement_of_a_number_counts(statement: str) -> None:
    assert NUMBER.extract(f"The answer is 9 apples.\n{statement}") == "12"
    assert NUMBER.extract(f"{statement}\nThere were 3 trees.") == "12"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Among A through E, the answer is most likely to be D.", "D"),
        ("Therefore, among A through E, the answer is\nD", "D"),
        ("The answer is going to be (D).", "D"),
        ("The answer is definitely D.", "D"),
        ("The answer that fits best is D: the heart.", "D"),
        ("The answer that fits the heart's work is D: the heart.", "D"),
        ("The best answer choice is D.", "D"),
        ("The correct option for this question is D.", "D"),
        ("The best option among these is (D).", "D"),
        ("The best option for this tree is **D**.", "D"),
        ("Therefore, option D (the heart) is correct.", "D"),
        ("Therefore, D (the heart) is the best answer.", "D"),
        ("The answer is D. The best option for a patient is A good rest.", "D"),
        ("The answer is D. Option A (the liver) is incorrect.", "D"),
        ("**Final answer (A-E):** D", "D"),
        ("The answer is B. elm, because A. oak is dry or C. ash is wet.", "B"),
        ("答案是B。", "B"),
        ("答案：Ｂ", "B"),
        ("因此，答案为（Ｃ）。", "C"),
        ("正确答案是 D，因为", "D"),
        ("故选：A。", "A"),
        ("答案是B选项", "B"),
        ("答案：【B】", "B"),
        ("本题选B。", "B"),
        ("答えはBです。", "B"),
        ("答えは(B)です。", "B"),
        ("따라서 정답은 (B)입니다.", "B"),
        ("Final answer C", "C"),
        ("Answer - C", "C"),
    ],
)
def test_statements_of_a_choice(text: str, answer: str) -> None:
    assert CHOICE.extract(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Therefore, the final answer (Yes or No) is No.", "no"),
        ("So the answer (yes or no) is: yes", "yes"),
    ],
)
def test_statements_of_a_label(text: str, answer: str) -> None:
    assert LABEL.extract(text) == answer


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("either B. elm, C. ash, or D. fir", ()),
        ("either B. elm, C. ash, or D. fir", TREES),
        ("The answer is either B. elm, C. ash, or D. fir.", ()),
        ("The answer is B. elm or C. ash.", ()),
        ("The answer is B. elm and C. ash.", ()),
        ("The answer is either (B) elm or (C) ash", ()),
        ("Answer: B, C, or D", ()),
        ("The answer is B (elm) or C (ash).", ()),
        ("The answer is B, or maybe C.", ()),
        ("The answer is either elm, ash, or fir.", TREES),
        ("The answer is elm or fir.", TREES),
    ],
)
def test_several_options_are_undecided(text: str, options: Sequence[str]) -> None:
    assert CHOICE.extract(text, options) is None


@pytest.mark.parametrize(
    "text",
    [
        "The answer would be {} if it rained.",
        "If it rained all day long in the whole of the country, then the answer would be {}.",
        "Had it rained, the answer would be {}.",
        "Without the rain, the answer would be {}.",
        "Suppose it rains. Then the answer would be {}.",
        "If it had rained, the answer would have been {}.",
        "Whatever we might think of it in the end, if it rains then the answer is {}.",
    ],
)
def test_a_hypothetical_statement_does_not_count(text: str) -> None:
    assert CHOICE.extract(text.format("D")) is None
    assert CHOICE.extract("The answer is B. " + text.format("D")) == "B"
    assert NUMBER.extract(text.format(24)) is None
    assert NUMBER.extract("The total is 12. " + text.format(24)) == "12"


@pytest.mark.parametrize(
    "text",
    [
        "If she sells them all day long, the answer is {}.",
        "If I'm not mistaken, the answer is {}.",
        "Whether or not it rains, the answer is {}.",
        "Assuming standard conditions, the answer is {}.",
        "If we add them up, then the answer is {}.",
        "When it rains, the answer would be {}.",
        "The answer would be {}, when it rains.",
        "My previous answer was {}.",
        "I'll keep my original answer: {}",
        "The student's answer is {}.",
    ],
)
def test_a_condition_without_would_and_an_earlier_answer_count_if_there_is_no_firm_statement(text: str) -> None:
    assert CHOICE.extract(text.format("C")) == "C"
    assert NUMBER.extract("There are 9 eggs. " + text.format(18)) == "18"
    assert CHOICE.extract("The answer is B. " + text.format("C")) == "B"
    assert NUMBER.extract(text.format(18) + " So the answer is 12.") == "12"


@pytest.mark.parametrize(
    "text",
    [
        "In case of rain, the answer would be {}.",
        "In the event that it rains, the answer would be {}.",
        "Should it rain, the answer would be {}.",
        "The wrong answer is {}.",
        "One might think the answer is {}.",
        "Many students think that the correct answer is {}.",
        "I do not think the answer is {}.",
        "I don't believe that the answer is {}.",
        "It is tempting to say the answer is {}, but that is wrong.",
        "At first sight the answer is {}, but it's incorrect.",
        "The answer is {}, but that is wrong because 3 is odd.",
        "The answer is {}, but this is incorrect as shown above.",
        "One would think the answer is {}.",
        "You would expect the answer is {}.",
        "It's a common mistake to think the answer is {}.",
        "A common misconception is that the answer is {}.",
        "You may have thought the answer is {}.",
    ],
)
def test_what_others_think_or_what_is_wrong_does_not_count(text: str) -> None:
    assert CHOICE.extract(text.format("C")) is None
    assert CHOICE.extract("The answer is B. " + text.format("C")) == "B"
    assert NUMBER.extract("The total is 18. " + text.format(22)) == "18"


@pytest.mark.parametrize(
    "text",
    [
        "One would say that the correct answer is {}.",
        "I can't say for certain that the answer is {}.",
        "It is wrong to say A so the answer is {}.",
        "Some say A but I say the answer is {}.",
        "The answer is {}, though it is not true for plants.",
        "The answer is {}, but this is not true during pregnancy.",
        "The answer is {}, but it is not true everywhere.",
        "The answer is {}, but that is wrong under other assumptions.",
        "As one would expect the answer is {}.",
        "It is a common mistake to say A so the answer is {}.",
        "You may have thought of A, but the answer is {}.",
        "It is no misconception that the answer is {}.",
        "After some thought I believe the answer is {}.",
        "The answer is {}; A, B and D are wrong.",
        "The correct answer is {}; A, B, and D are incorrect.",
    ],
)
def test_other_answers_in_the_sentence_leave_its_own(text: str) -> None:
    assert CHOICE.extract(text.format("C")) == "C"


def test_an_option_that_would_be_correct_under_a_condition_does_not_count() -> None:
    assert CHOICE.extract("The answer is B. Option C would be correct in case of rain.") == "B"


@pytest.mark.parametrize(
    "text",
    [
        "I think the answer is {}.",
        "I would say the answer is {}.",
        "After some work we believe that the answer is {}.",
        "Most likely, I think the answer is {}.",
        "One can conclude that the answer is {}.",
        "It should be clear that the answer would be {}.",
        "The answer is {}, but that is not all.",
    ],
)
def test_what_the_text_itself_thinks_counts(text: str) -> None:
    assert CHOICE.extract("The answer is B. " + text.format("C")) == "C"
    assert NUMBER.extract("The answer is 9. " + text.format(18)) == "18"


def test_a_denied_answer_does_not_beat_a_given_one() -> None:
    assert NUMBER.extract("The answer is 18. The answer is not 22.") == "18"
    assert NUMBER.extract("The answer is 18. The answer is **not** 22.") == "18"
    assert NUMBER.extract("The answer is 18. The answer is not among the choices.") is None
    assert NUMBER.extract("There are 5 apples. The answer is not 22.") is None
    assert NUMBER.extract("The answer is 18. The answer is not 22 but 20.") == "18"
    assert CHOICE.extract("The answer is B. The answer is not C.") == "B"


def test_what_the_answer_would_be_without_a_condition_counts() -> None:
    assert NUMBER.extract("So the answer would be 24.") == "24"


@pytest.mark.parametrize(
    "text",
    [
        '{"answer_choice": "C"}',
        '{"Answer_Choice": "c"}',
        '{"final_answer": "C"}',
        '{"finalAnswer": "C"}',
        '{"Final Answer": "C"}',
        '{"choice": "C"}',
        '{"option": "C"}',
        '{"prediction": "C"}',
        '{"selected_option": "C"}',
        '{"selection": "C"}',
        '{"answer": {"choice": "C"}}',
        '{"result":"C"}',
        '{"answer_choice": C}',
        "{'choice': 'C'}",
        '{"answer": ["C"]}',
        '{"answer": "C", "choice": "C"}',
        '{"answer": "A"}\n{"answer": "C"}',
        '```json\n{\n  "explanation": "It is \\"wet\\".",\n  "answer_choice": "C"\n}\n```',
        "<final_answer>C</final_answer>",
        "<final>C</final>",
        '{"ans": "C"}',
        '{"final": "C"}',
        '{"your_answer": "C"}',
        '{"answer_idx": "C"}',
        '{"answer": "elm", "answer_idx": "C"}',
        '{"answer_idx": "C", "answer": "an elm"}',
        '{"answer": "C", "answer_text": "elm"}',
        '{"answer": "C", "label": "medical"}',
        '{"solution": "A is dry, so C.", "answer": "C"}',
        '{"answer": "C", "response": "A"}',
        "<answer>C</answer><solution>A</solution>",
        '{"label": "A"}\n{"label": "C"}',
    ],
)
def test_keys_that_hold_the_answer(text: str) -> None:
    assert CHOICE.extract(text) == "C"
    assert CHOICE.extract(text, finished=False) == "C"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('```json\n{"final_answer": 42}\n```', "42"),
        ('{\n  "reasoning": "6 * 7",\n  "answer": 42\n}', "42"),
        ('{"Final Answer": "42"}', "42"),
        ('{"answer": -1.5e3}', "-1500"),
        ('{"answer": 1/2}', "1/2"),
        ('{"answer": 5, "result": 5}', "5"),
        ('{"answer": 5, "result": 6}', None),
        ('{"answer": 5, "answer_choice": "B"}', "5"),
        ('{"solution": "3 + 4 = 8", "answer": 7}', "7"),
        ('{"answer": 7, "output": 8}', "7"),
        ('{"output": 8}', "8"),
        ("<solution>3 apples and 4 pears</solution>\n<answer>7</answer>", "7"),
        ('{"reasoning": "3+4", "response": "It is seven because 3 + 4.", "answer": "7"}', "7"),
        ('{"answer": null}', None),
        ('{"answer": "\\\\frac{1}{2}"}', r"\frac{1}{2}"),
    ],
)
def test_values_of_keys(text: str, answer: str | None) -> None:
    assert NUMBER.extract(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes, it is.", "yes"),
        ("No, fire is hot.", "no"),
        ("Yes! Ice is cold.\nIt freezes.", "yes"),
        ("Maybe. It depends.", "maybe"),
        ("Yes - it is.", "yes"),
        ("No — it is not.", "no"),
        ("**Yes**: it is.", "yes"),
        ("Yes, no doubt.", "yes"),
        ("Yes… it is.", "yes"),
        ("Yes (it is).", "yes"),
        ("Yes--it is.", "yes"),
        ("No. 1 is the best.", None),
        ("No, no, it is hot.", "no"),
        ("Yes and no", None),
        ("Yes, and no.", None),
        ("Yes. No.", None),
        ("Yes/no", None),
        ("No effect, yes.", None),
        ("No one knows.", None),
        ("Maybe not.", None),
    ],
)
def test_a_label_that_starts_the_first_line(text: str, answer: str | None) -> None:
    assert LABEL.extract(text) == answer


def test_a_completion_that_is_cut_within_its_answer_has_none() -> None:
    pattern = AnswerRule("number", pattern=r"total: (\d+)")
    assert pattern.extract("total: 12", finished=False) is None
    assert pattern.extract("total: 12 and", finished=False) == "12"
    assert pattern.extract("total: 12") == "12"
    assert NUMBER.extract("so \\boxed 12", finished=False) is None
    assert NUMBER.extract("so $\\boxed 12$ and", finished=False) == "12"
    assert NUMBER.extract('{"answer": 12', finished=False) is None
    for text in ("B", "The answer is B", "#### B", "so\nB", "(B"):
        assert CHOICE.extract(text, finished=False) is None
    assert LABEL.extract("Yes, it is", finished=False) is None


def test_a_stop_text_ends_the_answer_of_a_completion_that_ran_on() -> None:
    rule = AnswerRule("number", stop=("\nQuestion:",))
    assert rule.extract("The answer is 12.\nQuestion: and then", finished=False) == "12"


@pytest.mark.parametrize("rule", [NUMBER, CHOICE, LABEL, AnswerRule("maths"), AnswerRule("text")])
def test_lone_surrogates_are_only_text(rule: AnswerRule) -> None:
    assert rule.extract("\\boxed{\ud800}") in (None, "\ud800")
    assert rule.extract("The answer is \udfff.\n\ud83d") in (None, "\udfff.", "\udfff.\n\ud83d")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Oak burns well. So it's C.", "C"),
        ("Oak burns well. It should be C", "C"),
        ("It has to be (C).", "C"),
        ("A, B and D are soft, so C.", "C"),
        ("Eliminating A, B, and D leaves C.", "C"),
        ("By elimination, C.", "C"),
        ("Thus: C", "C"),
        ("=> C", "C"),
        ("I am not sure, but I think C.", "C"),
        ("Only C fits.", "C"),
        ("Option C seems to be the best choice here.", "C"),
        ("B fits the description best.", "B"),
        ("A) oak - incorrect\nB) elm - incorrect\nC) ash - correct\nD) fir - incorrect", "C"),
        ("A: Incorrect\nB: Incorrect\nC: Correct", "C"),
        ("Which is NOT true? A is wrong. B is right. D is wrong.", None),
        ("Statement A is wrong, statement B is wrong and statement D is right.", None),
        ("Vitamin A is right for vision. Vitamin C is wrong. Vitamin D is wrong.", None),
        ("A was wrong in 1990. B was wrong. C was right in 2000.", None),
        ("Initially, A seems the most likely choice. But it is soft.\n\nB", "B"),
        ("C seems best for fires.\n\nB", "B"),
        ("Only A works in rain. The question is about snow.\n\nB", "B"),
        ("Not only A works.\n\nB", "B"),
        ("We need 5 V. So it's I", None),
        ("A: wrong, it is soft.\nB: wrong.\nC: correct.\nD: wrong.", "C"),
        ("A is correct. B is incorrect.", None),
        ("A is correct. B is correct. C is incorrect.", None),
        ("The correct answer is A. Actually no, it's C.", "C"),
        ("The answer is A. Wait, it is C because ash is hard.", "C"),
        ("Correct: C", "C"),
        ("My choice: C", "C"),
        ("Final: C", "C"),
        ("Choose C", "C"),
        ("It burns well. Pick option (C).", "C"),
        ("Let's go with C.", "C"),
        ("C is my answer.", "C"),
        ("I think C is correct.", "C"),
        ("Among the options, C is the best.", "C"),
        ("The answer is C ✓", "C"),
        ("因此，答案选择C。", "C"),
        ("We choose C values of 3.", None),
        ("So C seems most likely.", "C"),
        ("Of these, C seems the most implausible.", None),
        ("C appears to be the most harmful drug here.", None),
        ("Plan A seems the best known example.", None),
        ("Hepatitis B seems the most likely diagnosis.", None),
        ("Only D applies to children.", None),
        ("The answer is A. I am unsure whether A or B.", None),
        ("The answer is either A, not B, or C", None),
        ("The answer is C, not A, B, or D.", "C"),
        ("I think vitamin C is best.", None),
        ("I think A is correct. I think B is correct.", None),
        ("Answer: <C>", "C"),
        ("Richtig ist C.", "C"),
        ("It is a tree.", None),
        ("That is A good sign", None),
        ("Only a fits", None),
    ],
)
def test_a_letter_that_the_text_comes_to(text: str, answer: str | None) -> None:
    assert CHOICE.extract(text) == answer
    assert CHOICE.extract(text, TREES) == answer


@pytest.mark.parametrize(
    "line",
    [
        "C - ash",
        "C – ash",
        "C/ ash",
        "C] ash",
        "C, because ash is not soft as A, B or D.",
        "C. ash\n\nA. oak is soft.\nB. elm too.",
    ],
)
def test_a_line_with_an_option_and_its_text(line: str) -> None:
    assert CHOICE.extract(line, TREES) == "C"


@pytest.mark.parametrize(
    "text", ["A. oak\n\nB. elm\n\nC. ash", "A. oak: soft\n\nB. elm: soft\n\nC. ash: hard", "C. ash\nA. oak is soft."]
)
def test_options_that_are_gone_through_are_no_answer(text: str) -> None:
    assert CHOICE.extract(text, TREES) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 17. Wait, no, it's 18.", "18"),
        ("The answer is 17. Actually, it is $18.", "18"),
        ("The answer is 48. Actually, it's 4 boxes of 12, so this is right.", "48"),
        ("The answer is 48. Wait, it's 50. No, it's 4 boxes, so 48.", "48"),
        ("Hmm, that's 12 per box. With 4 boxes she has 12 x 4 = 48 pencils.", "48"),
        ("Wait, that's 20% off. So he pays $80.", "80"),
        ("First he buys 3. No, it's 4. Then he buys 5 more. So he has 9.", "9"),
        ("Hmm, it is 30. It takes twice that, so it takes 60 minutes in total.", "60"),
    ],
)
def test_only_an_answer_that_was_stated_is_corrected(text: str, answer: str) -> None:
    assert NUMBER.extract(text) == answer


@pytest.mark.parametrize("text", ["The answer is right atrium.", "Right atrium", "The answer is the right atrium."])
def test_an_article_tells_no_options_apart(text: str) -> None:
    assert CHOICE.extract(text, ("the left ventricle", "the right atrium", "a vein")) == "B"
    assert CHOICE.extract("The answer is a cat.", ("the cat", "a cat")) == "B"


def test_a_minus_before_an_options_text_is_no_dash() -> None:
    assert CHOICE.extract("Therefore, the answer is A: -5.", ("-5", "5", "0")) == "A"
