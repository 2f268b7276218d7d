"""Answers are found in completions of many shapes, and none is made up."""

import time

import pytest

from datamodules.answers.rule import AnswerRule, AnswerType, Extractor
from datamodules.errors import InputError

ORGANS = {"A": "small intestine", "B": "large intestine", "C": "B cells", "D": "20", "E": "20.5"}
BACTERIA = ("Klebsiella pneumoniae", "C. difficile", "E. coli", "A. baumannii", "Pseudomonas")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Thus \\boxed{B}.", "B"),
        ("answer is: $\\boxed{\\text{B}}$", "B"),
        ("\\boxed{B. some text}", "B"),
        ("\\boxed{\\textbf{(C) } 0.45}", "C"),
        ('Thought: it is A.\nAction: Answer("C")', "C"),
        ("<answer>\nD\n</answer>", "D"),
        ('{"reasoning": "so", "answer": "B"}', "B"),
        ('{"answer": E}', "E"),
        ("I prefer the first. [[A]]", "A"),
        ("#### C", "C"),
        ("The answer is B.", "B"),
        ("The answer is (B).", "B"),
        ("The answer is **B**.", "B"),
        ("**Answer:** B", "B"),
        ("**Answer: B**", "B"),
        ("## Final Answer\n\nC) the liver", "C"),
        ("Answer: C", "C"),
        ("Answer: c", "C"),
        ("the correct answer is option (c)", "C"),
        ("The correct option is (C), since the others fail.", "C"),
        ("The correct answer is therefore: J", "J"),
        ("The answer to this question is most likely Option D: the heart.", "D"),
        ("The best choice is C) text", "C"),
        ("So I would choose B because it fits.", "B"),
        ("Hence C is the correct answer.", "C"),
        ("Thus (D) is the best option.", "D"),
        ("Option B is correct.", "B"),
        ("The answer is A: 12. Wait. The answer is B: 13.", "B"),
        ("B", "B"),
        ("(b)", "B"),
        ("Option F", "F"),
        ("C. the liver\nIt makes bile.", "C"),
        ("Let me think.\n\nA", "A"),
        ("The answer is C\n\nExplanation: the liver makes bile.", "C"),
        ("The answer is C\nThis is because bile is made there.", "C"),
        ("The correct answer is A\n\nB would be true if the answer is B in another case", "A"),
        ("I would go with answer choice D", "D"),
        ("A is incorrect. B is incorrect. D is incorrect. So C.", "C"),
        ("The answer isn't A. It's C.", "C"),
        ("So A. and B. are out", None),
        ("La respuesta correcta es la B.", "B"),
        ("La réponse est B.", "B"),
        ("Die Antwort lautet C.", "C"),
        ("Ответ: D", "D"),
        ("<think>The answer is A.</think>The answer is B.", "B"),
        ("(B) is correct.", "B"),
        ("It is soft.\nTherefore, (C) is correct.", "C"),
        ("Hence (b) is correct answer.", "B"),
        ("It is soft.\ncorrect answer B", "B"),
        ("ANSWER :(Option B)", "B"),
        ("It is soft.\nOption: B", "B"),
        ("It is soft.\nAns B", "B"),
        ("The answer is not B but C.", "C"),
        ("The answer is not A, not B, but C: ash", "C"),
        ("The answer is C rather than B.", "C"),
        ("The answer is C, not B.", "C"),
        ("La respuesta correcta es la opción C.", "C"),
        ("The answer is B; C is wrong.", "B"),
        ("The answer is B – A is wrong.", "B"),
        ("答案是B，因为A和C不对", "B"),
    ],
)
def test_choices_of_unknown_text(text: str, answer: str | None) -> None:
    assert AnswerRule("choice").extract(text) == answer


@pytest.mark.parametrize(
    ("text", "prompt", "answer"),
    [
        ("<think>\\boxed{4}</think>The answer is 5.", "", "5"),
        ("<think>\\boxed{4}</think>\\boxed{5}", "", "5"),
        ("<think>\\boxed{4}</think>That is all.", "", None),
        ("<think>\\boxed{4}</think> \n", "", "4"),
        ("<think>First \\boxed{3}. So \\boxed{4}. But wait", "", "4"),
        ("<think>The answer is 4. But wait", "", None),
        ("[THINK]#### 4[/THINK]#### 5", "", "5"),
        ("analysis\\boxed{4}.assistantfinalThe answer is 5.", "", "5"),
        ("The answer is 4.", "Well? <think>\n", None),
        ("\\boxed{4}.</think>The answer is 5.", "Well? <think>\n", "5"),
    ],
)
def test_what_the_user_sees_counts(text: str, prompt: str, answer: str | None) -> None:
    assert AnswerRule("number").extract(text, prompt=prompt) == answer


def test_a_pattern_and_a_stop_are_read_in_what_the_user_sees() -> None:
    text = "<think>A: 4\nQ: really?</think>"
    rule = AnswerRule("number", pattern=r"A: (\d)", stop=("\nQ:",))
    assert (rule.extract(text), rule.extract(f"{text}A: 5\nQ: 6? A: 7")) == (None, "5")
    assert AnswerRule("number", stop=("\nQ:",)).extract(f"{text}So 5") == "5"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A patient with fever needs rest.",
        "I think that this is hard.",
        "The answer is a matter of taste.",
        "The answer is A good sign of health.",
        "The answer is B cells.",
        "The answer is C-reactive protein.",
        "The answer is E. coli.",
        "The answer is either A or C.",
        "The answer is A and C.",
        "The answer is A, B, or C",
        "The answer is B, but C is also correct.",
        "The answer is B, although C could also be right.",
        "The answer is B as well as C.",
        "答案：B或C",
        "答案是B、C",
        "答案是B和C。",
        "答えはBとCです。",
        "정답은 B와 C입니다.",
        "La respuesta es B o C.",
        "\\boxed{B;C}",
        "(A) oak is hard. (B) elm is soft. (C) ash is wet.",
        "A) oak B) elm C) ash D) fir",
        "(A) is correct.\n(B) is correct.",
        "The answer is either A: 1.2 % or B: 4 %.",
        'Answer("A") or Answer("B")',
        'Action: Answer("A")\nAction: Answer("B")',
        'The answer is B. Answer("BD")',
        'The closest is B. The answer is B: 20.\nAction: Answer("None of the Above")',
        "The answer is not B.",
        "If the answer is B, then A is false.",
        "Neither A, C, nor D is the correct answer.",
        "Option A is correct. Option C is correct.",
        "A: false\nB: false\nC: true",
        "Choice A: no.\nChoice B: no.\nChoice D: maybe not",
        "Option (B) supports the claim",
        "The answer is K.",
        "<think>The answer is A.",
        "There are 4 options",
    ],
)
def test_no_choice_is_made_up(text: str) -> None:
    assert AnswerRule("choice").extract(text) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is small intestine.", "A"),
        ("The answer is B cells.", "C"),
        ("\\boxed{20}", "D"),
        ("The answer is 20.5", "E"),
        ("**Large Intestine**", "B"),
        ("It digests.\nLarge intestine.", "B"),
        ("The answer is B: large intestine", "B"),
        ("A: small intestine", "A"),
        ("Answer: C. B cells", "C"),
        ("The answer is F.", None),
        ("C: but why?", None),
        ("Answer: b. large intestine", "B"),
        ("The answer is B large intestine.", "B"),
        ("The answer is B. small intestine", None),
        ("\\boxed{small intestine, large intestine}", None),
        ("The answer is small intestine as well as B cells.", None),
        ("None of the options is correct.", None),
        ("It digests.\nSo the large intestine is correct.", "B"),
        ("Answer: Large intestine\n\nExplanation: It absorbs water.", "B"),
        ("The answer is the large intestine\nIt absorbs water.", "B"),
        ("**Answer:**\nSmall intestine\n\nThe large intestine absorbs water.", "A"),
        ("Answer: Large intestine\nor small intestine", None),
        ("Answer: Large intestine\nsurgery", None),
        ("Answer:\n- Large intestine\n- Small Intestine", None),
        ("Answer: Large intestine surgery\n\nIt helps.", None),
    ],
)
def test_texts_of_options(text: str, answer: str | None) -> None:
    assert AnswerRule("choice").extract(text, ORGANS) == answer


DRUGS = ("Ampicillin", "Ceftriaxone", "Doxycycline", "Nitrofurantoin")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is B. It is better than A or C.", "B"),
        ("The correct answer is (B) Ceftriaxone. This rules out A, C, and D.", "B"),
        ("The answer is B. The patient has no signs of hepatitis B or C.", "B"),
        ("The answer is B (Ceftriaxone) rather than A (Ampicillin) or C (Doxycycline).", "B"),
        ("The answer is B, not A or C.", "B"),
        ("The answer is B. It could also be A or C.", None),
        ("The answer is B. Large leaves or C.", None),
        ("The answer is B. The growth of bacteria in blood or C.", None),
        ("The answer is B. ceftriaxone, A. ampicillin, or C", None),
        ("The answer is (B) Ceftriaxone or C.", None),
        ("The answer is B, if not A or C.", None),
        ("The answer is B. It is as good as (A) or (C).", None),
    ],
)
def test_names_in_another_sentence_or_set_apart_leave_the_answer(text: str, answer: str | None) -> None:
    assert AnswerRule("choice").extract(text, DRUGS) == answer
    assert AnswerRule("choice").extract(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("A. Ampicillin is incorrect because of resistance.", None),
        ("(A) Ampicillin is wrong since it is old. (B) Ceftriaxone is right.", None),
        ("(A) Ampicillin is old since 1961. (B) Ceftriaxone is new.", None),
        ("A. Ampicillin is not the best choice.", None),
        ("A. Ampicillin is not used here, because it is old.", "A"),
        ("(B) Ceftriaxone is right since it is new.", "B"),
        ("B. Ceftriaxone, because A. Ampicillin is old or C. Doxycycline is weak.", "B"),
        ("The answer is B. Ampicillin is incorrect.", "B"),
    ],
)
def test_a_line_that_rejects_an_option_or_goes_through_several_is_no_answer(text: str, answer: str | None) -> None:
    assert AnswerRule("choice").extract(text, DRUGS) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is elm. Oak and ash are not soft here.", "B"),
        ("The answer is the Elm. Oak and ash are not soft here.", "B"),
        ("Answer: Elm\n\nExplanation: Oak and ash are hard.", "B"),
        ("The answer is elm, not oak or ash.", "B"),
        ("The answer is elm, rather than the oak or ash.", "B"),
        ("The answer is elm rather than oak or ash.", "B"),
        ("The answer is elm instead of oak and ash.", "B"),
        ("The answer is elm, which is softer than oak and ash.", "B"),
        ("The answer is elm, as oak and ash are hard.", "B"),
        ("The answer is elm. It could be oak or ash.", None),
        ("The answer is elm. Or oak or ash.", None),
        ("The answer is elm, which is soft, or oak.", None),
        ("The answer is elm, as well as oak and ash.", None),
        ("The answer is elm, if not oak or ash.", None),
        ("The answer is elm\nor oak.", None),
    ],
)
def test_other_texts_in_another_sentence_or_set_apart_leave_the_answer(text: str, answer: str | None) -> None:
    assert AnswerRule("choice").extract(text, ("Oak", "Elm", "Ash", "Fir")) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is E. coli, or C. difficile.", None),
        ("The answer is Klebsiella pneumoniae or E. coli.", None),
        ("The answer is E. coli.", "C"),
        ("The answer is C. difficile, which makes toxins.", "B"),
        ("The answer is C. E. coli", "C"),
        ("The answer is A. baumannii.", "D"),
        ("The answer is D. A. baumannii.", "D"),
        ("The answer is E.", "E"),
        ("H. pylori", None),
    ],
)
def test_names_of_bacteria_are_no_letters(text: str, answer: str | None) -> None:
    assert AnswerRule("choice").extract(text, BACTERIA) == answer


GERMS = ("Haemophilus influenzae", "Staphylococcus aureus", "Chlamydia trachomatis", "Bordetella pertussis")


@pytest.mark.parametrize(
    ("text", "options", "answer"),
    [
        ("The answer is B. pertussis.", GERMS, "D"),
        ("The answer is C. trachomatis.", GERMS, "C"),
        ("The answer is H. influenzae.", GERMS, "A"),
        ("The answer is B. Staphylococcus aureus.", GERMS, "B"),
        ("The answer is A. fumigatus.", ("Candida albicans", "Aspergillus fumigatus"), "B"),
        ("The answer is B. cold air.", ("warm air", "cold air", "bitter cold air"), "B"),
        ("\\boxed{C. Both A and B}", ("x", "y", "Both A and B"), "C"),
        ("<answer>C. Both A and B</answer>", ("x", "y", "Both A and B"), "C"),
        ("(C) Both A and B", ("x", "y", "Both A and B"), "C"),
        ("The answer is both A and B.", ("x", "y", "Both A and B"), "C"),
        ("The answer is both A and B.", ("x", "y", "z"), None),
        ("The answer is C. Both A and B or A.", ("x", "y", "Both A and B"), None),
        ("The answer is D. Both A and C.", ("x", "y", "z", "Both a and c"), "D"),
        ("The answer is AB.", ("A", "B", "AB", "O"), "C"),
        ("The answer is A good sign.", ("good", "bad"), None),
    ],
)
def test_an_options_own_text_after_its_letter_or_in_its_place(
    text: str, options: tuple[str, ...], answer: str | None
) -> None:
    assert AnswerRule("choice").extract(text, options) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: Plasma exchange, then rest\n\nExplanation: It is fast.", "B"),
        ("Answer: Plasma exchange\n\nExplanation: It is fast.", "A"),
        ("Answer: Plasma exchange, but not rest\n\nExplanation: It is fast.", "A"),
    ],
)
def test_the_longest_option_of_the_line_counts(text: str, answer: str) -> None:
    assert AnswerRule("choice").extract(text, ("Plasma exchange", "Plasma exchange, then rest")) == answer


@pytest.mark.parametrize(
    ("text", "options", "answer"),
    [
        ("The answer is 1000.", ("100", "1,000", "10,000"), "B"),
        ("20 percent", ("10%", "20%"), "B"),
        ("The answer is 1/2.", ("\\frac{1}{2}", "2"), "A"),
        ("The answer is 0.5.", ("\\frac{1}{2}", "2"), "A"),
        ("\\boxed{\\$12}", ("12", "15"), "A"),
        ("The answer is 12 apples.", ("12", "15"), "A"),
        ("The answer is 12 or 15 apples.", ("12", "15"), None),
        ("The answer is 120.", ("12", "15"), None),
        ("The answer is 1/2.", ("0.5", "50%"), None),
        ("It takes two steps:\n1. Add 3.\n2. Double it.", ("1", "2"), None),
        ("2. Double it.", ("1", "2"), None),
    ],
)
def test_an_options_value_in_another_form(text: str, options: tuple[str, ...], answer: str | None) -> None:
    assert AnswerRule("choice").extract(text, options) == answer


def test_options_may_be_named_by_digits() -> None:
    options = {"1": "5 N", "2": "10 N", "3": "3"}
    rule = AnswerRule("choice")
    assert [rule.extract(f'Answer("{text}")', options) for text in ("2", "10 N", "3", "4")] == ["2", "2", "3", None]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### 18", "18"),
        ("#### $65,000", "65000"),
        ("####\n-7", "-7"),
        ("#### 135 miles", "135"),
        ("#### $9 500", "9500"),
        ("The answer is 9\u202f500 and 1.", "9500"),
        ("The answer is 1,00,000 rupees", "100000"),
        ("There are 10 200", "200"),
        ("A: -1.8 billion", "-1800000000"),
        ("The answer is 18.", "18"),
        ("The answer is *18* - which is even.", "18"),
        ("The answer is 60 miles/hour.", "60"),
        ("The answer is $18.00 per day.", "18.00"),
        ("The final answer is: $\\boxed{3{,}000}$", "3000"),
        ("\\boxed{18 \\text{ dollars}}", "18"),
        ("\\boxed{x = 5}", "5"),
        ("\\boxed{\\frac{3}{4}}", "\\frac{3}{4}"),
        ("\\boxed{3\\sqrt{2}}", "3\\sqrt{2}"),
        ("\\boxed{50\\%}", "50%"),
        ("**Answer: 1 1/2 cups**", "3/2"),
        ("Answer: 3/4", "3/4"),
        ("The answer is 3 + 4 = 7 apples.", "7"),
        ("The answer is 3 apples + 4 apples = 7 apples.", "7"),
        ("The answer is 9 eggs (3 + 4 + 2 = 9) * 2 = 18.", "18"),
        ("The answer is 18 = 9 * 2", "18"),
        ("The answer is 18 = 20 - 2", "18"),
        ("The answer is 12, since x = 3 and y = 4.", "12"),
        ("The answer is 36, where r = 6.", "36"),
        ("The answer is 12 with n = 4.", "12"),
        ("The answer is $20 with 10% off = $18.", "18"),
        ("The answer is 12 (check: 12 - 7 = 5).", "12"),
        ("The answer is 300 cm because 1 m = 100 cm.", "300"),
        ("#### 12 (x = 3)", "12"),
        ("<answer>12 (x = 3)</answer>", "12"),
        ("\\boxed{12 \\text{ (where } x=3)}", "12"),
        ("The answer is 12 m^2.", "12"),
        ("\\boxed{12\\text{ m}^2}", "12"),
        ("\\boxed{12 \\mathrm{~cm}^{2}}", "12"),
        ("The answer is 9.8 m/s^2.", "9.8"),
        ("The answer is 5 ft^2 of carpet.", "5"),
        ("The answer is 3x^2.", "3x^2"),
        ("The answer is 1.5 x 10^6.", "1500000"),
        ("The answer is 2.5e-3", "0.0025"),
        ("The answer is 2 million.", "2000000"),
        ("The answer is 50 percent.", "50%"),
        ("The answer is that Janet makes $18 every day.", "18"),
        ("So 16 - 3 - 4 = 9, and Janet makes $18 every day.", "18"),
        ("She has 9 eggs at 5:30", "9"),
        ("She has -3 degrees", "-3"),
        ("In 5-3=2 steps", "2"),
        ("The total area is 12 m^2.", "12"),
        ("The total area is $12\\text{ m}^2$.", "12"),
        ("Thus he needs $\\frac{3}{4}$ cups of sugar.", "3/4"),
        ("Thus he needs $2\\dfrac{1}{2}$ cups of sugar.", "5/2"),
        ("That is $\\frac{12}{4} = 3$ cups of sugar.", "3"),
        ("That is $\\frac{x}{4}$", "4"),
        ("So we get 2^5 = 32 in all", "32"),
        ('{"answer": 42}', "42"),
        (".5", ".5"),
        ("18", "18"),
    ],
)
def test_numbers(text: str, answer: str) -> None:
    assert AnswerRule("number").extract(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no number",
        "The answer is 10-15.",
        "The answer is between 10 and 15.",
        "The answer is 10 to 15 apples.",
        "The answer is 3 or 4.",
        "The answer is 5:30.",
        "The answer is 05/01/2021.",
        "The answer is 2 hours and 30 minutes.",
        "The answer is 3 * 4.",
        "The answer is 2x.",
        "#### 10+John's age",
        "The answer is unknown, about 3.",
    ],
)
def test_no_number_is_made_up(text: str) -> None:
    assert AnswerRule("number").extract(text) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Yes", "yes"),
        ("No.", "no"),
        ("**Maybe**", "maybe"),
        ("#### No", "no"),
        ("####\nYes", "yes"),
        ("The answer is yes, because it rose.", "yes"),
        ("Answer: no\n", "no"),
        ("The study shows it.\n\nYes.", "yes"),
        ("Yes.\nThe study shows it.", "yes"),
        ("Answer: no effect was found", None),
        ("yes or no", None),
        ("The answer is yes/no.", None),
        ("It rose.", None),
        ("", None),
    ],
)
def test_yes_no_maybe(text: str, answer: str | None) -> None:
    assert AnswerRule("label").extract(text) == answer


def test_other_labels() -> None:
    rule = AnswerRule("label", labels=("plausible", "implausible"))
    assert rule.extract("So the answer is: Implausible.") == "implausible"


@pytest.mark.parametrize(
    ("kind", "extractors", "text", "answer"),
    [
        ("maths", None, "so \\boxed{4}, no \\boxed{5}", "5"),
        ("maths", None, "The answer is 5.", None),
        ("maths", ("boxed", "stated"), "The answer is $x^2 + 1$.", "x^2 + 1"),
        ("maths", ("boxed", "stated"), "The final answer is $\\$18.90$. I hope it is correct.", "\\$18.90"),
        ("maths", ("boxed", "stated"), "The answer is \\$18.90 or so.", "18.90"),
        ("maths", ("boxed", "stated"), "The answer is $\\frac{1}{2}$, not $2$.", "\\frac{1}{2}"),
        ("maths", ("boxed", "stated"), "The answer is 18 dollars.", "18"),
        ("maths", ("boxed", "stated", "last_number"), "That makes 18 dollars.", "18"),
        ("maths", ("stated",), "The answer is x > 3.", "x > 3"),
        ("maths", ("stated",), "The answer is (1,2).", "(1,2)"),
        ("maths", ("stated",), "The answer is 5 and 6.", "5 and 6"),
        ("maths", ("stated",), "The answer is 5i.", "5i"),
        ("maths", ("stated",), "The answer is 5 - 2i.", "5 - 2i"),
        ("maths", ("stated",), "The answer is √2.", "√2"),
        ("maths", ("stated",), "The answer is n + 1.", "n + 1"),
        ("maths", ("stated",), "The answer is 1, 2.", "1, 2"),
        ("maths", ("stated",), "The answer is 1,234.", "1234"),
        ("maths", ("stated",), "The answer is more than 3 in all.", "3"),
        ("maths", ("stated",), "The answer is x = 5.", "5"),
        ("maths", ("stated",), "The answer is 12 m^2.", "12 m^2"),
        ("text", None, "#### 05/01/2021", "05/01/2021"),
        ("text", None, "**Answer:** Paris", "Paris"),
        ("text", None, "**Answer: Paris**\nIt is a city.", "Paris"),
        ("text", None, "**Answer:**\n**Paris**\nIt is a city.", "Paris"),
        ("text", None, "The answer is **Paris**.\n\nParis is the capital.", "Paris."),
        ("text", None, "The answer is 2 * 3 * 4.", "2 * 3 * 4."),
        ("text", None, "The answer is a**b", "a**b"),
        ("text", None, "The answer is 5 * 3", "5 * 3"),
        ("text", None, "The answer is **Paris** and **Rome**.", "Paris and Rome."),
        ("text", None, "Answer: \u9996\u90fd\u662f**\u5df4\u9ece**\u3002", "\u9996\u90fd\u662f\u5df4\u9ece\u3002"),
        ("text", None, "The answer is:\n```\nParis\n```", "Paris"),
        ("text", None, "The answer is ```Paris```", "Paris"),
        ("text", None, "The answer is:\n```\nyes\n```", "yes"),
        ("text", None, "<answer>```yes\n```</answer>", "yes"),
        ("text", None, "The answer is:\n```python3\n4\n```", "4"),
        ("text", None, "The answer is f*g*h", "f*g*h"),
        ("text", None, "The answer is \u03c0*r*\u03c0", "\u03c0*r*\u03c0"),
        ("text", None, "The answer is SELECT COUNT(*) FROM t", "SELECT COUNT(*) FROM t"),
        ("text", None, "<answer>SELECT COUNT(*) FROM t</answer>", "SELECT COUNT(*) FROM t"),
        ("text", None, "The answer is **SELECT COUNT(*) FROM t**", "SELECT COUNT(*) FROM t"),
        ("text", None, "The answer is SELECT t.* FROM t", "SELECT t.* FROM t"),
        ("text", None, "The answer is 2*(3+4)", "2*(3+4)"),
        ("text", None, "The answer is x*-1", "x*-1"),
        ("text", None, "The answer is (2)**(3)", "(2)**(3)"),
        ("text", None, "The answer is an A* search.", "an A* search."),
        ("text", None, "The answer is a C*-algebra.", "a C*-algebra."),
        ("text", None, "The answer is SELECT *FROM t", "SELECT *FROM t"),
        ("text", None, "<answer>*Paris*\nand Rome</answer>", "Paris\nand Rome"),
        ("text", None, "So it is\n`Paris`", "Paris"),
        ("text", ("last_line",), "so\nParis", "Paris"),
        ("choice", ("boxed",), "The answer is B.", None),
    ],
)
def test_places_are_looked_at_in_order(
    kind: AnswerType, extractors: tuple[Extractor, ...] | None, text: str, answer: str | None
) -> None:
    assert AnswerRule(kind, extractors).extract(text) == answer


def test_the_last_match_of_a_pattern_counts() -> None:
    assert AnswerRule("choice", pattern=r"Pick: (\w)").extract("Pick: A, Pick: B, answer: C") == "B"
    assert AnswerRule("number", pattern=r"total (.+)").extract("total $1,200.50 now") == "1200.50"
    assert AnswerRule("choice", pattern=r"Pick: (\w)").extract("The answer is C") is None
    assert AnswerRule("choice", ("pattern", "stated"), r"Pick: (\w)").extract("The answer is C") == "C"


def test_what_follows_a_stop_text_is_not_looked_at() -> None:
    rule = AnswerRule("number", stop=("\nQuestion:",))
    assert rule.extract("The answer is 5.\nQuestion: and then? The answer is 6.") == "5"


def test_an_unfinished_completion_has_only_answers_with_an_end() -> None:
    assert AnswerRule("number").extract("The answer is 12", finished=False) is None
    assert AnswerRule("number").extract("#### 12", finished=False) is None
    assert AnswerRule("choice").extract("The answer is A", finished=False) is None
    assert AnswerRule("number").extract("\\boxed{12} and so", finished=False) == "12"
    assert AnswerRule("choice").extract('Answer("A") as', finished=False) == "A"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"extractors": ("box",)}, "unknown extractor 'box'; known are boxed, tagged"),
        ({"extractors": ("pattern",)}, "together, or neither"),
        ({"extractors": ("boxed",), "pattern": "(a)"}, "together, or neither"),
        ({"pattern": "a"}, "exactly one group"),
        ({"pattern": "(a"}, "not a valid regular expression"),
    ],
)
def test_rules_that_make_no_sense(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        AnswerRule("choice", **settings)


@pytest.mark.parametrize(
    "piece",
    ["answer ", "answer is ", "answer:", "the answer is A or ", "Answer(", 'Answer("A") or ', "<answer>", '"answer": ',
     "[[", "####", "#### ", "1,", "1,234", "9", "9.", "-", "1/2 ", "10^", "A", "(A", "A is ", "Option A is the best ",
     "Option ", "\\text{", "\\text{A}", "$", "*", "_", "**A** ", " ", "\n", "A: x\n", "if ", "yes or ", "</think>",
     "e1", "1e", "x 10^", "\\(", "\\boxed{", "=", "1 hour and ",
     "1 or ", "1 m or 1 ", "(1=", "1 since ", "1 000 ", "m^2 ", "some say ", "half a ",
     "one point one ", "if, the answer is A. ", '{"answer": "A"} ', "$1 M", "answer" + " " * 50],
)  # fmt: skip
def test_hostile_completions_take_linear_time(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    start = time.process_time()
    for kind in ("maths", "number", "choice", "label", "text"):
        rule = AnswerRule(kind, ("boxed", "hashes", "tagged", "stated", "last_line", "first_line", "last_number"))
        rule.extract(text, ORGANS)
        rule.extract("The answer is " + text, ORGANS)
    assert time.process_time() - start < 3


def test_a_pattern_that_takes_for_ever_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamodules.answers.rule.PATTERN_SECONDS", 0.2)
    with pytest.raises(InputError, match=r"takes more than 0\.2 s on a completion of 5001 characters"):
        AnswerRule("text", pattern=r"(a+)+b").extract("a" * 5000 + "c")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("答案是十二。", "12"),
        ("所以答案是三百二十五。", "325"),
        ("答案：一万二千元", "12000"),
        ("答案是负三点五。", "-3.5"),
        ("答案是四分之三。", "3/4"),
        ("答案为百分之五十", "50%"),
        ("答案是两千零二十", "2020"),
        ("答案：二〇二四年", "2024"),
        ("一起算一下，3个", "3"),
        ("Die Antwort ist 3,5.", "3.5"),
        ("La respuesta es 12,50 euros", "12.50"),
        ("The total is 1,234", "1234"),
        ("The point is (3,5)", "5"),
        ("Therefore he has 3 apples left, not 5.", "3"),
        ("The answer is therefore 13 and not 12", "13"),
        ("It is $7 rather than $9.", "7"),
        ("It is not 9.", None),
        ("The answer isn't 5.", None),
        ("It doesn’t equal 18.", None),
        ("He spent 5", "5"),
        ("The answer is not only 5 but also right", "5"),
        ("答案是一共5个。", "5"),
        ("答案是一共五个。", "5"),
        ("答案：三个人一共12元", "12"),
        ("答案是一年有365天", "365"),
        ("答案是百米", None),
        ("答案是一定的", None),
        ("The answer is 2,3 and 5", None),
        ("The answer is 1,5 and 2,3", None),
        ("See pages 3,4", None),
        ("The pair is 1,5", None),
        ("Die Antwort ist 1.234,5", "1234.5"),
        ("Die Antwort ist 1.234.567,89", "1234567.89"),
        ("The answer is (2.125,3)", "3"),
        (r"\boxed{0.125,3}", "0.125"),
        ("The answer is 0.750,2.5", "0.750"),
        ("Die Antwort ist 1.234,56, also viel", "1234.56"),
        ("Die Antwort ist 1.234,56 € (etwa)", "1234.56"),
        ("Also gibt er (1.234,56 €)", "1234.56"),
        ("Das sind (etwa 1.234,56)", "1234.56"),
        ("Das sind 3,5, also mehr als 2", "2"),
        ("Das sind 3,5, also mehr", "3.5"),
        ("The answer is (1, 2,5)", "5"),
        (r"The interval is \left(2,5\right)", "5"),
        (r"The set is \left\{2,5\right\}", "5"),
        ("The set is {1,2, ...}", "2"),
        ("The answer is (3,5)", "5"),
        ("The answer is 0.125,0.5 m", "0.125"),
        ("The answer is 1,23,456", "123456"),
    ],
)
def test_numbers_of_other_languages_and_rejected_numbers(text: str, answer: str | None) -> None:
    assert AnswerRule("number").extract(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is US$18.", "18"),
        ("The answer is USD 18.", "18"),
        ("The answer is Rs. 1,800.", "1800"),
        ("Der Betrag ist 1.234.567 Euro.", "1234567"),
        ("The answer is 192.168.100.200", None),
        ("It equals 2^10", "1024"),
        ("That makes 5^2.", "25"),
        ("The area is 5 m^2", "5"),
        ("The answer is 12. Wait, no, it's 18 eggs.", "18"),
        ("The answer is 12. Wait, no, it's 3/4.", "3/4"),
        ("The answer is 12. Wait, it's 2 times larger.", "12"),
        ("So she needs \\frac34", "3/4"),
        ("So she needs \\frac{3}4 of it", "3/4"),
        ("It is ¾ cup.", "3/4"),
        ("There are 50 people (20 men and 30 women).", "50"),
        ("There are 50 people: 20 men, 25 women and 5 children.", "50"),
        ("There are 50 people (20 men and 20 women).", "20"),
        ("There are 50 people, 20 of them men and 30 women left.", "30"),
        ("There are 7 - 3 + 4", "4"),
        ("In round 5: 2 points, and 3.", "3"),
    ],
)
def test_money_fractions_and_sums_at_the_end(text: str, answer: str) -> None:
    assert AnswerRule("number").extract(text) == answer
