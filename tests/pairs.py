"""Rows in which every two values of every two factors meet once: a pairwise covering array."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations

Pair = tuple[tuple[str, object], tuple[str, object]]


def every_pair(factors: Mapping[str, Sequence]) -> Iterator[Pair]:
    """Two values of different factors, in the order of the factors."""
    for first, second in combinations(factors, 2):
        for a in factors[first]:
            for b in factors[second]:
                yield (first, a), (second, b)


def covering_rows(
    factors: Mapping[str, Sequence], fits: Callable[[dict], bool]
) -> list[dict[str, object]]:
    """Full rows that fit, which hold every pair that fits.

    Greedy and without chance: a row begins with the first pair that is missing, and every other
    factor takes the value that meets most missing pairs.

    Args:
        factors: values by name; the first value of each fits everything.
        fits: whether a row, or a part of one, is good.
    """
    missing = [pair for pair in every_pair(factors) if fits(dict(pair))]
    rows = []
    while missing:
        row = dict(missing[0])
        for name, values in factors.items():
            if name in row:
                continue
            chosen = [value for value in values if fits(row | {name: value})]
            row[name] = max(chosen, key=lambda value: _met(row | {name: value}, missing))
        rows.append(row)
        missing = [pair for pair in missing if not _holds(row, pair)]
    return rows


def _holds(row: dict, pair: Pair) -> bool:
    return all(name in row and row[name] == value for name, value in pair)


def _met(row: dict, missing: list[Pair]) -> int:
    return sum(_holds(row, pair) for pair in missing)
