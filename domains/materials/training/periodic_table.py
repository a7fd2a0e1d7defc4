"""Which elements are alike: by their places in the periodic table."""

from __future__ import annotations

from collections.abc import Sequence

NOBLE_GASES = (0, 2, 10, 18, 36, 54, 86, 118)
LANTHANIDES, ACTINIDES = range(58, 72), range(90, 104)
PERIOD_COST = 0.75
"""How far apart neighbors in a column are, where neighbors in a row are 1 apart."""


def place(number: int) -> tuple[int, int]:
    """Returns the period and the group (1 to 18) of an element; lanthanides and actinides stand with their first, in 3.

    Args:
        number: atomic number.
    """
    period = next(row for row, last in enumerate(NOBLE_GASES) if number <= last)
    past, length = number - NOBLE_GASES[period - 1], NOBLE_GASES[period] - NOBLE_GASES[period - 1]
    if number in LANTHANIDES or number in ACTINIDES:
        return period, 3
    if past <= 2 and number != 2:
        return period, past
    return period, past + 18 - length if length <= 18 or past > 3 else past


def likest_element(number: int, known: Sequence[int]) -> int:
    """Returns the known element nearest to another one in the periodic table; of several the nearest by number."""
    period, group = place(number)

    def distance(other: int) -> tuple[float, int]:
        row, column = place(other)
        return PERIOD_COST * abs(row - period) + abs(column - group), abs(other - number)

    return min(known, key=distance)
