"""Numbers are read in words, in other scripts and with units, and quantities in two units are undecided."""

import pytest

from datamodules.answers.rule import AnswerRule
from datamodules.answers.units import ratios

NUMBER = AnswerRule("number")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("minus 3", "-3"),
        ("negative five", "-5"),
        ("−5", "-5"),
        ("–5", "-5"),
        ("–5 – and no more", "-5"),
        ("3½", "7/2"),
        ("½ cup", "1/2"),
        ("2 and 3/4", "11/4"),
        ("4 and a half", "9/2"),
        ("10^6", "1000000"),
        ("10⁻³", "0.001"),
        ("2 × 10⁻³", "0.002"),
        ("12k", "12000"),
        ("$12K", "12000"),
        ("12kg", "12"),
        ("3 hundred", "300"),
        ("2 dozen", "2 dozen"),
        ("1.5 dozens", "1.5 dozen"),
        ("five", "5"),
        ("Twenty-one apples", "21"),
        ("two hundred and five", "205"),
        ("five hundred thousand", "500000"),
        ("a dozen", "12"),
        ("half a dozen", "6"),
        ("half a million", "500000"),
        ("one and a half dozen", "18"),
        ("two and a half million", "2500000"),
        ("2 and a half million", "2500000"),
        ("one and two thirds", "5/3"),
        ("two hundred fifty thousandths", "250/1000"),
        ("twenty-five hundredths", "25/100"),
        ("twenty-two thirds", "22/3"),
        ("zero point five", "0.5"),
        ("one point two five million", "1250000"),
        ("one thousand, two hundred", "1200"),
        ("five lakh rupees", "500000"),
        ("5 lakh rupees", "500000"),
        ("1.5 crore", "15000000"),
        ("3bn", "3000000000"),
        ("$3.2B", "3200000000"),
        ("€1.5M", "1500000"),
        ("$12 B", "12000000000"),
        ("3 B cells", "3"),
        ("3万元", "30000"),
        ("1.5亿", "150000000"),
        ("5百万", "5000000"),
        ("3千克", "3"),
        ("1⁄2", "1/2"),
        ("٣٫٥", "3.5"),
        ("٣٬٥٠٠", "3500"),
        ("5·10³", "5000"),
        ("two and a half", "5/2"),
        ("three quarters", "3/4"),
        ("one", "1"),
        ("５", "5"),
        ("３．５", "3.5"),
        ("１，２３４", "1234"),
        ("٣", "3"),
        ("5e-05", "0.00005"),
        ("2.55e-10", "0.000000000255"),
        ("4.5 \\times 10^{33}", "45" + "0" * 32),
    ],
)
def test_words_and_scripts(text: str, answer: str) -> None:
    assert NUMBER.extract(f"The answer is {text}.") == answer
    assert NUMBER.extract(text) == answer


def test_words_that_are_no_numbers() -> None:
    assert NUMBER.extract("No one knows.") is None
    assert NUMBER.extract("The answer is 10 minus 3.") is None
    assert NUMBER.extract("She takes 10 minus 3") == "3"
    assert NUMBER.extract("The answer is one of them.") is None
    assert NUMBER.extract("One of the 3 trees is 12 m tall, and two are not.") == "12"
    assert NUMBER.extract("There are five apples left.") == "5"
    assert NUMBER.extract("共有12个苹果") == "12"


@pytest.mark.parametrize(
    "quantity",
    [
        "4 hours and 30 minutes",
        "4 hours, 30 minutes",
        "4 h 30 min",
        "4h30m",
        "3 hrs 15 mins",
        "4 hours and a half",
        "an hour and 30 minutes",
        "one hour and 30 minutes",
        "2 weeks and 3 days",
        "3 years and 2 months",
        "5 feet 11 inches",
        "5 ft. 11 in.",
        "5'11\"",
        "5 dollars and 20 cents",
        "$5 and 20 cents",
        "3 pounds 4 ounces",
        "3 lbs, 4 oz",
        "2 km 300 m",
        "3 kg and 200 grams",
        "5 gallons and 2 quarts",
        "2 cups and 3 tablespoons",
        "1 tbsp plus 2 tsp",
        "3 weeks and a day",
        "2 hours plus 30 minutes",
        "2 L 500 mL",
        "3 dozen and 4 eggs",
        "30°15'",
    ],
)
def test_a_quantity_in_two_units_is_undecided(quantity: str) -> None:
    assert NUMBER.extract(f"It is {quantity}.") is None
    assert NUMBER.extract(f"The answer is {quantity}.") is None
    assert NUMBER.extract(f"It is {quantity}, so the total is 270.") == "270"


@pytest.mark.parametrize("text", ["She reads 3 books and 30 pages.", "Every day, 30 minutes", "4 h 30 min = 30"])
def test_other_pairs_of_numbers_are_read(text: str) -> None:
    assert NUMBER.extract(text) == "30"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("90 minutes, or 1.5 hours", "90"),
        ("0.5 or 1/2", "0.5"),
        ("50% or 0.5", "50%"),
        ("3/4 cup or 0.75 cups", "3/4"),
        ("1.5 or 1 1/2", "1.5"),
        ("90 minutes or 2 hours", None),
        ("0.5 or 1/3", None),
    ],
)
def test_of_two_equal_quantities_the_first_is_read(text: str, answer: str | None) -> None:
    assert NUMBER.extract(f"The answer is {text}.") == answer
    assert NUMBER.extract(f"The answer is {text}, as we saw.") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("5-7 km away", None),
        ("10-12 hours", None),
        ("20-25%", None),
        ("10 - 12", None),
        ("$5-$7", None),
        ("- 5", "-5"),
        ("-5", "-5"),
        ("$-5", "-5"),
        ("-$5", "-5"),
        ("等于-5", "-5"),
    ],
)
def test_a_hyphen_between_numbers_is_no_sign(text: str, answer: str | None) -> None:
    assert NUMBER.extract(f"It is {text}") == answer


def test_numbers_of_names_and_years_are_not_negative() -> None:
    assert NUMBER.extract("In 1990-1995 he was there.") is None
    assert NUMBER.extract("It is COVID-19") is None
    assert NUMBER.extract("so 5-3 = 2:00 pm") is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("= $118 000.", "118000"),
        ("It has 2 000 000 people.", "2000000"),
        ("It has 2 000 people.", "2000"),
        ("There are 10 200", "200"),
        ("They cost $9 500 and more.", "9500"),
        ("Route 5 has 100 000.5 km", "100000.5"),
    ],
)
def test_groups_of_digits_within_a_text(text: str, answer: str) -> None:
    assert NUMBER.extract(text) == answer


@pytest.mark.parametrize("text", ["3, 4, or 5", "3 apples or 4 apples", "3 or 4", "3 to 4"])
def test_several_numbers_are_undecided(text: str) -> None:
    assert NUMBER.extract(f"The answer is {text}.") is None


@pytest.mark.parametrize(
    ("first", "second", "ratio"),
    [
        ("kg", "g", 1000),
        ("hours", "minutes", 60),
        ("h", "seconds", 3600),
        ("$", "cents", 100),
        ("€", "cents", 100),
        ("£", "pounds", 1),
        ("pounds", "lb", 1),
        ("km^2", "square meters", 1_000_000),
        ("cm²", "square centimeters", 1),
        ("miles per hour", "mph", 1),
        ("acres", "m^2", None),
        ("m", "cm", 100),
        ("^{\\circ}", "degrees", 1),
    ],
)
def test_units_that_convert(first: str, second: str, ratio: int | None) -> None:
    found = ratios(first, second)
    assert found == {ratio} if ratio else len(found) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("kg", "cm"),
        ("cm", "cm^2"),
        ("$", "€"),
        ("\\circ", "%"),
        ("\\circ C", "\\circ F"),
        ("apples", "kg"),
        ("m", "min"),
    ],
)
def test_units_of_different_things(first: str, second: str) -> None:
    assert ratios(first, second) == set()
