"""Numbers with units, as they stand in YAML files: `0.5 fs`, `100 ps`, `298 K`, `1/ps`.

Every quantity is read from text into a float in the canonical unit of its dimension, and written
back as text with that unit. A number without a unit is refused. The units that are understood are
listed here, one table per dimension, so that there is nothing to guess.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer

from trip_mm.suggestions import closest
from trip_mm.units import ATMOSPHERE_TO_BAR, EV_TO_KJ_PER_MOL, KCAL_PER_MOL_TO_KJ_PER_MOL

_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(.*)", re.DOTALL)
_MAX_CHARACTERS = 64
_MAX_EXPONENT = 30


@dataclass(frozen=True)
class Dimension:
    """A physical dimension, the unit it is stored in, and the units it may be written in.

    Attributes:
        name: what the quantity is, for messages.
        unit: canonical unit, a key of `factors`.
        factors: multiplier from each allowed unit to the canonical one.
        example: a well-formed value, for messages.
        zero_allowed: whether zero is a sensible value; negative values never are.
    """

    name: str
    unit: str
    factors: dict[str, Fraction]
    example: str
    zero_allowed: bool = False


def _exact(text: str | float) -> Fraction:
    return Fraction(str(text))


_PER_PS = {"/ps": _exact(1), "/fs": _exact(1000), "/ns": _exact("1e-3")}
_KCAL = _exact(KCAL_PER_MOL_TO_KJ_PER_MOL)

DURATION = Dimension(
    "a duration",
    "ps",
    {"fs": _exact("1e-3"), "ps": _exact(1), "ns": _exact(1000), "us": _exact("1e6")},
    "100 ps",
)
TIMESTEP = Dimension("a timestep", "fs", {"fs": _exact(1), "ps": _exact(1000)}, "0.5 fs")
TEMPERATURE = Dimension("a temperature", "K", {"K": _exact(1)}, "298 K", zero_allowed=True)
FRICTION = Dimension("a friction", "/ps", _PER_PS, "1/ps")
PRESSURE = Dimension(
    "a pressure",
    "bar",
    {
        "bar": _exact(1),
        "atm": _exact(ATMOSPHERE_TO_BAR),
        "Pa": _exact("1e-5"),
        "kPa": _exact("1e-2"),
        "MPa": _exact(10),
    },
    "1 bar",
    zero_allowed=True,
)
LENGTH = Dimension(
    "a length",
    "A",
    {"A": _exact(1), "Å": _exact(1), "nm": _exact(10), "pm": _exact("1e-2")},
    "10 A",
)
MASS = Dimension("a mass", "u", {"u": _exact(1), "amu": _exact(1), "Da": _exact(1)}, "1.5 u")
FORCE = Dimension(
    "a force",
    "kJ/mol/nm",
    {
        "kJ/mol/nm": _exact(1),
        "kJ/mol/A": _exact(10),
        "kcal/mol/A": 10 * _KCAL,
        "kcal/mol/nm": _KCAL,
        "eV/A": 10 * _exact(EV_TO_KJ_PER_MOL),
    },
    "10 kJ/mol/nm",
)
CONCENTRATION = Dimension(
    "a concentration",
    "mol/l",
    {"mol/l": _exact(1), "mol/L": _exact(1), "M": _exact(1), "mM": _exact("1e-3")},
    "0.15 mol/l",
    zero_allowed=True,
)


def parse_quantity(value: object, dimension: Dimension) -> float:
    """Reads a number with its unit.

    Args:
        value: text such as `0.5 fs`.
        dimension: what the quantity must be.

    Returns:
        The value in the canonical unit, rounded once (the arithmetic is exact).

    Raises:
        ValueError: not text, no unit, an unknown unit, or a value that is out of range. The
            message says what to write.
    """
    example = dimension.example
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"expected {dimension.name}; write for example {example}")
    text = str(value)
    match = _NUMBER.fullmatch(text) if len(text) <= _MAX_CHARACTERS else None
    if match is None:
        shown = text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS] + "..."
        raise ValueError(f"{shown!r} is not {dimension.name}; write for example {example}")
    number, unit = match[1], _normal_unit(match[2])
    if not unit:
        raise ValueError(f"{number} has no unit; write {_with_unit(number, dimension)}")
    if unit not in dimension.factors:
        raise ValueError(_unknown_unit(unit, dimension))
    exponent = re.search(r"[eE]([+-]?\d+)", number)
    if exponent is not None and abs(int(exponent[1])) > _MAX_EXPONENT:
        raise ValueError(f"{text.strip()} is out of any sensible range")
    exact = Fraction(number) * dimension.factors[unit]
    if exact < 0 or (exact == 0 and not dimension.zero_allowed):
        bound = "must not be negative" if dimension.zero_allowed else "must be greater than zero"
        raise ValueError(f"{text.strip()} {bound}; write for example {example}")
    return float(exact)


def format_quantity(value: float, dimension: Dimension) -> str:
    """Writes a value in the canonical unit as text that `parse_quantity` reads back exactly."""
    return _with_unit(f"{value!r}".removesuffix(".0"), dimension)


def _with_unit(number: str, dimension: Dimension) -> str:
    separator = "" if dimension.unit.startswith("/") else " "
    return f"{number}{separator}{dimension.unit}"


def _normal_unit(text: str) -> str:
    """Brings `1/ps`, `ps^-1`, `ps**-1` and `ps-1` to `/ps` and removes spaces."""
    unit = "".join(text.split()).removeprefix("*")
    inverse = re.fullmatch(r"(?:1/|/)?([A-Za-z]+)(\^-1|\*\*-1|-1)?", unit)
    if inverse is not None and (unit.startswith("1/") or inverse[2]):
        return "/" + inverse[1]
    return unit


def _unknown_unit(unit: str, dimension: Dimension) -> str:
    known = list(dimension.factors)
    close = closest(unit, known)
    hint = f"; use one of {', '.join(known)}" if close is None else f"; did you mean {close!r}?"
    return f"{unit!r} is not a unit of {dimension.name}{hint} (for example {dimension.example})"


def _validator(dimension: Dimension) -> BeforeValidator:
    return BeforeValidator(lambda value: parse_quantity(value, dimension))


def _serializer(dimension: Dimension) -> PlainSerializer:
    return PlainSerializer(lambda value: format_quantity(value, dimension), return_type=str)


Duration = Annotated[float, _validator(DURATION), _serializer(DURATION)]
Timestep = Annotated[float, _validator(TIMESTEP), _serializer(TIMESTEP)]
Temperature = Annotated[float, _validator(TEMPERATURE), _serializer(TEMPERATURE)]
Friction = Annotated[float, _validator(FRICTION), _serializer(FRICTION)]
Pressure = Annotated[float, _validator(PRESSURE), _serializer(PRESSURE)]
Length = Annotated[float, _validator(LENGTH), _serializer(LENGTH)]
Mass = Annotated[float, _validator(MASS), _serializer(MASS)]
ForceMagnitude = Annotated[float, _validator(FORCE), _serializer(FORCE)]
Concentration = Annotated[float, _validator(CONCENTRATION), _serializer(CONCENTRATION)]
