"""Units of measurement: what they measure, and how they convert.

A unit may measure several things: a pound is a mass or a sum of money. Units that are not listed ("apples") are nouns:
they decide nothing.
"""

import re
from fractions import Fraction
from functools import lru_cache
from itertools import product

Measure = tuple[tuple[tuple[str, int], ...], Fraction]
"""What a unit measures, as dimensions with their exponents, and how many basic units it is."""

_TABLE = """
length 1 m meter metre | 1000 km kilometer kilometre | 1/100 cm centimeter centimetre | 1/10 dm decimeter decimetre
length 1/1000 mm millimeter millimetre | 1/1000000 μm µm um micrometer micrometre micron | 1/1000000000 nm nanometer
length 0.3048 ft foot feet | 0.0254 in inch | 0.9144 yd yard | 1609.344 mi mile
mass 1 g gram gramme | 1000 kg kilogram kilo | 1/1000 mg milligram | 1/1000000 µg μg ug microgram | 1000000 tonne
mass 453.59237 lb pound | 28.349523125 oz ounce | 907184.74 ton | 1000000 ton | 6350.29318 stone
time 1 s sec second | 60 min minute | 3600 h hr hour | 86400 day | 604800 week wk | 1/1000 ms millisecond msec
time 2592000 month | 31536000 year yr | 1/1000000 µs μs microsecond | 1/1000000000 ns nanosecond
calendar 1 month | 12 year yr | 120 decade | 1200 century
dollar 1 dollar $ USD buck | 1/100 cent ¢ | 1/100 penny | 1/20 nickel | 1/10 dime
euro 1 euro € EUR | 1/100 cent ¢
sterling 1 pound £ GBP | 1/100 penny pence
yuan 1 元 yuan RMB CNY ¥ 块
yen 1 yen ¥ JPY
rupee 1 rupee ₹ Rs INR | 1/100 paisa paise
volume 1 l L liter litre | 1/1000 ml mL milliliter millilitre | 1/100 cl | 3.785411784 gallon gal | 0.946352946 quart qt
volume 0.473176473 pint pt | 0.2365882365 cup | 0.0295735295625 ounce | 0.01478676478125 tablespoon tbsp
volume 0.00492892159375 teaspoon tsp
angle 1 degree \\circ deg
radian 1 radian rad
celsius 1 degree \\circ \\circC °C celsius
fahrenheit 1 degree \\circ \\circF °F fahrenheit
percent 1 % percent
byte 1 byte B | 1000 kB KB kilobyte | 1000000 MB megabyte | 1000000000 GB gigabyte
kelvin 1 K kelvin
force 1 N newton | 1000 kN
energy 1 J joule | 1000 kJ kilojoule | 1000000 MJ | 4.184 cal calorie | 4184 kcal kilocalorie | 3600000 kWh
power 1 W watt | 1000 kW kilowatt
pressure 1 Pa pascal | 1000 kPa | 101325 atm
voltage 1 V volt
current 1 A ampere amp | 1/1000 mA
resistance 1 Ω ohm
frequency 1 Hz hertz | 1000 kHz | 1000000 MHz
amount 1 mol mole
"""
_DERIVED = {"mph": "mile/h", "kph": "km/h", "kmh": "km/h", "acre": "4046.8564224 m^2", "hectare": "10000 m^2"}


def _units() -> dict[str, list[tuple[str, Fraction]]]:
    units: dict[str, list[tuple[str, Fraction]]] = {}
    for line in _TABLE.strip().splitlines():
        dimension, rest = line.split(" ", 1)
        for entry in rest.split(" | "):
            factor, *names = entry.split()
            for name in names:
                units.setdefault(name, []).append((dimension, Fraction(factor)))
    return units


_UNITS = _units()
_SINGULAR = {"feet": "foot", "inches": "inch", "centuries": "century", "pennies": "penny", "pence": "pence"}
_WORD = r"[A-Za-zµμ%°¢$€£¥₹Ω元块]{1,20}|\\circ ?[CF]?(?![A-Za-z])"
_PIECE = re.compile(
    rf"\s*(?P<slash>/|per\b|an?\b|\\cdot)?\s*(?P<power>(?:square|cubic|sq|cu)\.?\s)?\s*\^?\{{?(?P<word>{_WORD})\}}?\.?"
    r"(?:\s?\^\s?\{?(?P<exponent>-?\d)\}?|(?P<small>[²³])|\s(?P<suffix>squared|cubed))?"
)
_POWERS = {"s": 2, "c": 3}


def lookup(word: str) -> list[tuple[str, Fraction]]:
    """What the unit of a name or symbol may measure; empty if it is none. Names may be plurals and in any case."""
    if word in _UNITS:
        return _UNITS[word]
    small = word.casefold()
    small = _SINGULAR.get(small) or small
    if len(small) > 2 and small not in _UNITS:
        small = small.removesuffix("s")
    return _UNITS.get(small, []) if len(word) > 2 or small in ("ft", "in", "lb", "oz", "yd", "kg", "cm", "km") else []


@lru_cache(maxsize=4096)
def measures(text: str) -> tuple[Measure, ...]:
    r"""What a unit may measure; empty if a part of it is no listed unit.

    Example:
        >>> measures("km/h")
        (((('length', 1), ('time', -1)), Fraction(5, 18)),)
        >>> measures("apples")
        ()
    """
    found: list[list[tuple[str, int, Fraction]]] = []
    position, sign = 0, 1
    text = text.strip()
    while position < len(text):
        piece = _PIECE.match(text, position)
        if piece is None or len(found) == 4:
            return ()
        word = piece["word"].replace(" ", "")
        derived = word.casefold().removesuffix("s")
        sign = -1 if piece["slash"] in ("/", "per", "a", "an") else sign
        power = _POWERS.get((piece["power"] or piece["suffix"] or "")[:1], 1)
        power = {"²": 2, "³": 3}.get(piece["small"] or "", power) * int(piece["exponent"] or 1) * sign
        if derived in _DERIVED:
            return _derived(derived, power) if not found and piece.end() == len(text) else ()
        options = lookup(word)
        if not options:
            return ()
        found.append([(dimension, power, factor**power) for dimension, factor in options])
        position = piece.end()
    return tuple(_combined(choice) for choice in product(*found)) if found else ()


def _derived(word: str, power: int) -> tuple[Measure, ...]:
    factor, _, unit = ("1 " + _DERIVED[word]).removeprefix("1 " if _DERIVED[word][0].isdigit() else "").partition(" ")
    ((dimensions, scale),) = measures(unit)
    return ((tuple((name, exponent * power) for name, exponent in dimensions), (scale * Fraction(factor)) ** power),)


def _combined(parts: tuple[tuple[str, int, Fraction], ...]) -> Measure:
    powers: dict[str, int] = {}
    factor = Fraction(1)
    for dimension, power, scale in parts:
        powers[dimension] = powers.get(dimension, 0) + power
        factor *= scale
    return tuple(sorted((name, power) for name, power in powers.items() if power)), factor


def ratios(first: str, second: str) -> set[Fraction]:
    """How many of the second unit one of the first may be; empty if they measure different things.

    Example:
        >>> ratios("kg", "g"), ratios("kg", "cm")
        ({Fraction(1000, 1)}, set())
    """
    return {
        one / other for dimensions, one in measures(first) for others, other in measures(second) if dimensions == others
    }


def compound(larger: str, smaller: str) -> bool:
    """Whether two units are used together for one quantity, as hours and minutes are."""
    return (larger, smaller) == ("h", "m") or any(ratio > 1 for ratio in ratios(larger, smaller))
