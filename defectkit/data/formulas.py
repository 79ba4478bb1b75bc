"""Chemical formulas as a corpus: made up by rules, from tables that libraries ship, or from a CSV.

A formula is a set of elements with whole amounts that have no common divisor. Where it is written
as a sentence, the elements stand in the order of their electronegativity, as in "MoS2".

Axes: n formulas, K elements of the longest of them.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import combinations
from math import gcd
from pathlib import Path

import numpy as np
import pandas as pd

from defectkit import DefectkitError
from defectkit.structures.names import one_line

N_ELEMENTS = 118
SHORTEST, LONGEST = 2, 6  # elements of a formula
MOST = 6  # atoms of an element in a made-up formula
DRAWN = 500_000  # made-up formulas at a time, of which few are balanced
LAST_STABLE, UNSTABLE = 83, (43, 61)  # bismuth; technetium and promethium
COLUMNS = ("formula", "formula_pretty", "pretty_formula", "composition")
MAX_ROWS = 5_000_000  # of a file


@dataclass(frozen=True, eq=False)
class Corpus:
    """Formulas as numbers.

    Attributes:
        z: (n, K) atomic numbers, by electronegativity; 0 where a formula has ended.
        amount: (n, K) atoms of each in the formula; 0 there.
        skipped: how many formulas were read that are none, or none with whole amounts.
    """

    z: np.ndarray
    amount: np.ndarray
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows: np.ndarray) -> "Corpus":
        """Some of the formulas."""
        return Corpus(self.z[rows], self.amount[rows])

    def sentence(self, row: int) -> list[str]:
        """Elements and amounts of a formula, as in ["Mo", "S2"]."""
        pairs = zip(self.z[row], self.amount[row])
        return [f"{_symbols()[z]}{n if n > 1 else ''}" for z, n in pairs if z]

    def parts(self, share: float, seed: int) -> "tuple[Corpus, Corpus]":
        """The formulas in two parts, drawn at random; the second holds `share` of them."""
        order = np.random.default_rng(seed).permutation(len(self))
        cut = round(share * len(self))
        return self[np.sort(order[cut:])], self[np.sort(order[:cut])]


def invented(rows: int = 200_000, seed: int = 0) -> Corpus:
    """Formulas of two to four elements that chemistry might allow.

    Elements, one of the common oxidation states of each (pymatgen's table) and amounts of at most
    `MOST` are drawn at random, and kept where charges add up to zero and no cation is more
    electronegative than an anion. Nobody has to have made such a compound. Elements without a
    stable isotope are left out. Every formula comes once; the same seed makes the same corpus.

    Raises DefectkitError where there are not so many.
    """
    rng = np.random.default_rng(seed)
    found: dict[bytes, None] = {}  # in the order of the drawing
    while len(found) < rows:
        before = len(found)
        drawn = [np.hstack(_in_order(*_drawn(size, rng))) for size in (2, 3, 4)]
        numbers = rng.permutation(np.concatenate(drawn)).astype(np.int16)
        found |= dict.fromkeys(row.tobytes() for row in numbers)
        if len(found) == before:
            raise DefectkitError(f"There are {before:,} made-up formulas; ask for no more rows.")
    numbers = np.frombuffer(b"".join(list(found)[:rows]), np.int16).reshape(rows, 8)
    return Corpus(numbers[:, :4].astype(np.int64), numbers[:, 4:].astype(np.int64))


def _drawn(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers and amounts, (n, 4) each, of balanced formulas with `size` elements."""
    elements, charges, pauling = _states()
    drawn = rng.integers(len(elements), size=(size, DRAWN))  # formulas along the longer axis
    state = rng.integers(1 << 16, size=drawn.shape) % (charges != 0).sum(axis=1)[drawn]
    z, q, x = elements[drawn], charges[drawn, state], pauling[drawn]
    kept = np.where(q > 0, x, -np.inf).max(axis=0) < np.where(q < 0, x, np.inf).min(axis=0)
    kept &= np.logical_and.reduce([z[i] != z[j] for i, j in combinations(range(size), 2)])
    z, q = z[:, kept], q[:, kept]
    amount = rng.integers(1, MOST + 1, size=z.shape)
    # The last amount is the one that balances the others, where there is one.
    last = -(q[:-1] * amount[:-1]).sum(axis=0) // q[-1]
    amount[-1] = last
    kept = (last >= 1) & (last <= MOST) & ((amount * q).sum(axis=0) == 0)
    kept &= np.gcd.reduce(amount, axis=0) == 1
    empty = (0, 0), (0, 4 - size)
    return np.pad(z[:, kept].T, empty), np.pad(amount[:, kept].T, empty)


def from_libraries() -> Corpus:
    """Formulas of compounds that come with pymatgen, matminer and ASE, each once.

    Nearly all are those of the Materials Project for which matminer has transport properties
    (Ricci et al., Sci. Data 4, 170085, 2017).
    """
    return corpus_of(text for texts in library_texts().values() for text in texts)


def library_texts() -> dict[str, list[str]]:
    """Formulas by the table that they come from, as they are written there."""
    from ase.collections import g2

    transport = files("matminer") / "utils/data_files/mp_transport/transport_database.tar.xz"
    measured = files("pymatgen") / "analysis/compatibility/exp_compounds.json.gz"
    table = pd.read_csv(str(transport), compression={"method": "tar", "mode": "r:xz"})
    return {
        "matminer: transport, Materials Project": table.pretty_formula.astype(str).tolist(),
        "pymatgen: measured energies": pd.read_json(str(measured)).formula.tolist(),
        "ASE: molecules of g2": [str(atoms.symbols) for atoms in g2],
    }


def read_formulas(path: str | Path) -> Corpus:
    """Formulas of a CSV file, each once, from its column `formula`.

    The column may also be called as in exports of the Materials Project and OQMD (`COLUMNS`).
    Rows that hold no formula with whole amounts are passed over and counted.

    Raises DefectkitError, in one sentence, for a file that cannot be read, has no such column, or
    holds fewer than two formulas.
    """
    try:
        heading = pd.read_csv(path, nrows=0)
        column = next((name for name in COLUMNS if name in heading), None)
        if column is None:
            raise DefectkitError(
                f"{path} has no column 'formula'; its columns are "
                f"{one_line(', '.join(map(str, heading)))}. Name the one with formulas so."
            )
        texts = pd.read_csv(path, usecols=[column], dtype=str, nrows=MAX_ROWS)[column].dropna()
    except FileNotFoundError as error:
        raise DefectkitError(
            f"There is no file {path}; name a CSV with a column formula."
        ) from error
    except (OSError, ValueError) as error:  # pandas' own errors of a table are ValueErrors
        raise DefectkitError(
            f"{path} is no CSV table that can be read ({one_line(error)}); save it as one in UTF-8."
        ) from error
    corpus = corpus_of(texts)
    if len(corpus) < 2:
        raise DefectkitError(
            f"{path} holds {len(corpus)} different formulas in its column '{column}' and "
            f"{corpus.skipped:,} that cannot be read; two are needed."
        )
    return corpus


def named(name: str, rows: int | None = None, seed: int = 0) -> Corpus:
    """The corpus that a configuration names: "invented", "libraries", or the path of a CSV file.

    Args:
        name: of the corpus.
        rows: how many formulas; all by default, and of made-up ones 200,000.
        seed: of the making, or of the choice among more.

    Raises DefectkitError where there are not so many, or for a bad file.
    """
    if name == "invented":
        return invented(seed=seed) if rows is None else invented(rows, seed)
    corpus = from_libraries() if name == "libraries" else read_formulas(name)
    if rows is None:
        return corpus
    if rows > len(corpus):
        raise DefectkitError(f"'{name}' holds {len(corpus):,} formulas; ask for no more rows.")
    return corpus[np.sort(np.random.default_rng(seed).permutation(len(corpus))[:rows])]


@cache
def groups() -> np.ndarray:
    """(119,) group of the periodic table by atomic number, 0 where there is no element.

    Lanthanides and actinides belong to group 3, as pymatgen has it.
    """
    from pymatgen.core import Element

    return np.array([0, *(Element.from_Z(z).group for z in range(1, N_ELEMENTS + 1))])


def corpus_of(texts: Iterable[str]) -> Corpus:
    """Formulas from their texts, each once; what is none of whole amounts is passed over."""
    found: dict[tuple, None] = {}
    skipped = 0
    for text, count in Counter(texts).items():
        numbers = _parsed(text)
        if numbers is None:
            skipped += count
        else:
            found[numbers] = None
    width = max((len(numbers) for numbers in found), default=1)
    z = _padded([[element for element, _ in numbers] for numbers in found], width)
    amount = _padded([[count for _, count in numbers] for numbers in found], width)
    return Corpus(*_in_order(z, amount), skipped)


def _parsed(text: str) -> tuple[tuple[int, int], ...] | None:
    """Atomic numbers with whole amounts, by number; None where the text is no such formula."""
    from pymatgen.core import Composition

    try:
        amounts = Composition(text).get_el_amt_dict()
        counts = {_numbers()[symbol]: round(amount) for symbol, amount in amounts.items()}
    except (ValueError, KeyError, OverflowError):  # no formula; deuterium and ions
        return None
    whole = all(abs(n - round(n)) < 1e-6 and n > 0.5 for n in amounts.values())
    if not whole or not SHORTEST <= len(counts) <= LONGEST:
        return None
    divisor = gcd(*counts.values())
    return tuple(sorted((z, n // divisor) for z, n in counts.items()))


def _padded(rows: Iterable, width: int) -> np.ndarray:
    """(n, width) with zeros behind what is shorter."""
    rows = list(rows)
    table = np.zeros((len(rows), width), dtype=np.int64)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return table


def _in_order(z: np.ndarray, amount: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same by electronegativity, then by atomic number; what is empty stands last."""
    order = _places()[z].argsort(axis=1, kind="stable")
    return np.take_along_axis(z, order, axis=1), np.take_along_axis(amount, order, axis=1)


@cache
def _places() -> np.ndarray:
    """(119,) rank of each element by electronegativity; those without a value come first."""
    from pymatgen.core import Element

    pauling = [Element.from_Z(z).data.get("X") or 0.0 for z in range(1, N_ELEMENTS + 1)]
    rank = np.empty(N_ELEMENTS + 1, dtype=np.int64)
    rank[1:][np.argsort(pauling, kind="stable")] = np.arange(N_ELEMENTS)
    rank[0] = N_ELEMENTS
    return rank


@cache
def _states() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(E,) atomic numbers, (E, S) common charges with zeros behind, (E,) electronegativities."""
    from pymatgen.core import Element

    elements = [Element.from_Z(z) for z in range(1, N_ELEMENTS + 1)]
    charged = [
        (e.Z, sorted(q for q in e.common_oxidation_states if q), e.data["X"])
        for e in elements
        if e.data.get("X") and e.Z <= LAST_STABLE and e.Z not in UNSTABLE
    ]
    z, charges, pauling = zip(*(row for row in charged if row[1]))
    return np.array(z), _padded(charges, max(map(len, charges))), np.array(pauling)


@cache
def _symbols() -> list[str]:
    from ase.data import chemical_symbols

    return chemical_symbols


@cache
def _numbers() -> dict[str, int]:
    from ase.data import atomic_numbers

    return {symbol: z for symbol, z in atomic_numbers.items() if z}
