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
        ("2 dozen", "24"),
        ("1.5 dozen", "18"),
        ("five", "5"),
        ("Twenty-one apples", "21"),
        ("two hundred and five", "205"),
        ("five hundred thousand", "500000"),
        ("a dozen", "12"),
        ("half a dozen", "6"),
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
    ],
)
def test_a_quantity_in_two_units_is_undecided(quantity: str) -> None:
    assert NUMBER.extract(f"It is {quantity}.") is None
    assert NUMBER.extract(f"The answer is {quantity}.") is None
    assert NUMBER.extract(f"It is {quantity}, so the total is 270.") == "270"


@pytest.mark.parametrize("text", ["She reads 3 books and 30 pages.", "Every day, 30 minutes", "4 h 30 min = 30"])
def test_other_pairs_of_numbers_are_read(text: str) -> None:
    assert NUMBER.extract(text) == "30"


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
