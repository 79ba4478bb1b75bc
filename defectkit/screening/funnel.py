"""From thousands of predictions to a short list: a funnel in which nothing vanishes unsaid.

A chunk of candidates becomes a table of judged predictions (`predicted`). The table of all goes
through stages (`sieve`): each names those that it stops and says why, and what is left is ranked
and thinned to a list whose members differ from each other.

Stability is asked against two others: the same dopant on its best other site in the same host, and
the clean host beside the dopant's own bulk, whose energy is the zero of every formation energy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from defectkit import DefectkitError
from defectkit.data.demo import NO_DOPANT
from defectkit.graphs.dataset import GraphDataset
from defectkit.predict.domain import composition_vectors
from defectkit.predict.predictor import UNREAD, Predictor
from defectkit.screening.building import Built, build
from defectkit.screening.candidates import Chunk
from defectkit.structures.record import reduced_formula

DIGITS = 4  # of eV and μB that are kept
NUMBERS = (
    "eform",
    "eform_sigma",
    "eform_lo",
    "eform_hi",
    "spin",
    "spin_sigma",
    "latent",
    "composition",
    "surroundings",
)
POOL = 10  # times the length of the short list: as many are thinned to it
STAGES = {
    "overlap": "atoms lie in each other before relaxation",
    "impossible": "a value that cannot be",
    "unfamiliar": "the guard says: do not rely on this value",
    "wide": "the interval is wider than asked for",
    "dear": "the formation energy is higher than asked for",
    "weak": "the magnetic moment is smaller than asked for",
    "elsewhere": "another site of the same host holds the dopant better",
    "outranked": "others are better in energy, moment and margin together",
    "alike": "the short list holds one that is more like it than the others are",
    "chosen": "on the short list",
}


@dataclass(frozen=True)
class Wish:
    """What a screening looks for.

    Attributes:
        length: of the short list.
        most_width: eV, of the interval of the formation energy.
        most_eform: eV, of the formation energy; any where it is not given.
        least_spin: μB, of the magnetic moment.
        least_margin: eV, by which a site must be better than the best other one of the same host
            and dopant; below zero to let worse ones pass.
        confidence: of the intervals.

    Raises DefectkitError for values that no candidate can meet.
    """

    length: int = 20
    most_width: float = 2.0
    most_eform: float | None = None
    least_spin: float = 0.0
    least_margin: float = 0.0
    confidence: float = 0.9

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not np.isfinite(value):
                raise DefectkitError(f"{field.name} is {value}; give a number.")
        if self.length < 1:
            raise DefectkitError(f"A short list of {self.length} is none; ask for one at least.")
        if not self.most_width > 0:
            raise DefectkitError(
                f"No interval is narrower than {self.most_width} eV; ask for more."
            )


def predicted(chunk: Chunk, predictor: Predictor, confidence: float = 0.9) -> pd.DataFrame:
    """Judged predictions of a chunk's candidates, a row each, indexed by key, in their order.

    Args:
        chunk: of candidates.
        predictor: of unrelaxed structures.
        confidence: of the intervals.

    Returns:
        What a candidate is: `name`, `host`, `dopant`, `removed`, `kind`, `site`, `strain`, and
        `natoms`; the numbers `NUMBERS` (eV, μB, and distances as in `Predictor.__call__`), NaN
        where atoms overlap; `verdict`, with its `sentence` where it is not "inside", `impossible`
        and `fault`; `vector`, the latent vector as bytes of half precision.
    """
    made = list(build(chunk, predictor.card.graph))
    told = pd.DataFrame(
        [_told(one) for one in made], pd.Index([one.key for one in made], name="key")
    )
    read = [one for one in made if one.graph is not None]
    blank = dict.fromkeys(("sentence", "impossible"), "")
    told = told.assign(**dict.fromkeys(NUMBERS, np.nan), **blank, verdict=UNREAD, vector=b"")
    if not read:
        return told
    keys = [one.key for one in read]
    family = chunk.families[0]  # a chunk has one host
    foreign = predictor.learned.foreign(family.unit)
    reading = ["; ".join(filter(None, (foreign, one.doubt))) for one in read]
    composition = told.loc[keys].assign(formula=reduced_formula(family.unit))
    composition["dopant"] = composition.dopant.replace(NO_DOPANT, "")
    table, vectors = predictor.judge(
        GraphDataset.from_graphs(one.graph for one in read),
        composition_vectors(composition),
        pd.Series(reading, keys),
        {one.key: one.atoms for one in read},
        confidence,
    )
    told.loc[keys, list(NUMBERS)] = table[list(NUMBERS)].round(DIGITS).to_numpy()
    told.loc[keys, ["verdict", "impossible"]] = table[["verdict", "impossible"]].to_numpy()
    told.loc[keys, "sentence"] = table.sentence.where(table.verdict != "inside", "").to_numpy()
    told.loc[keys, "vector"] = [row.tobytes() for row in vectors.to_numpy(np.float16)]
    return told


def _told(one: Built) -> dict[str, object]:
    """What a candidate is, for the table."""
    family = one.family
    strain = f"_{100 * family.strain:+.1f}%" if family.strain else ""
    return {
        "name": f"{family.host}_{one.dopant}_{family.site.name}{strain}",
        "host": family.host,
        "dopant": one.dopant,
        "removed": ",".join(family.removed),
        "kind": family.site.kind,
        "site": family.site.name,
        "strain": family.strain,
        "natoms": len(one.atoms),
        "fault": one.fault,
    }


def sieve(table: pd.DataFrame, wish: Wish) -> pd.DataFrame:
    """Every candidate with the stage that it reaches, and why; the short list is not thinned yet.

    Args:
        table: of `predicted`, `vector` not needed.
        wish: what is looked for.

    Returns:
        The table with `margin_site` and `margin_bulk` (eV, above zero where the candidate is the
        more stable one; NaN without a competitor), their least `margin`, `stage` (of `STAGES`),
        `reason`, and `place` in the ranking from 1; 0 where a candidate is not ranked. Those with a
        place up to `POOL` times the length of the short list have the stage "chosen".
    """
    table = table.join(_margins(table))
    table["stage"], table["reason"], table["place"] = "", "", 0
    width = table.eform_hi - table.eform_lo
    ceiling = np.inf if wish.most_eform is None else wish.most_eform
    tests = {
        "overlap": (table.fault != "", lambda row: row.fault),
        "impossible": (table.impossible != "", lambda row: row.impossible),
        "unfamiliar": (table.verdict != "inside", lambda row: row.sentence),
        "wide": (
            width > wish.most_width,
            lambda row: f"from {row.eform_lo:.2f} to {row.eform_hi:.2f} eV",
        ),
        "dear": (table.eform > ceiling, lambda row: f"{row.eform:.2f} eV"),
        "weak": (table.spin < wish.least_spin, lambda row: f"{row.spin:.2f} μB"),
        "elsewhere": (table.margin_site < wish.least_margin, _elsewhere),
    }
    for stage, (stopped, words) in tests.items():
        stopped &= table.stage == ""
        table.loc[stopped, "reason"] = [words(row) for row in table[stopped].itertuples()]
        table.loc[stopped, "stage"] = stage
    left = table.index[table.stage == ""]
    order = _ranked(table.loc[left])
    table.loc[order, "place"] = np.arange(1, len(order) + 1)
    table.loc[order, "stage"] = "chosen"
    rest = order[POOL * wish.length :]
    table.loc[rest, "stage"] = "outranked"
    table.loc[rest, "reason"] = [
        f"place {place:,} of {len(order):,}" for place in table.place[rest]
    ]
    return table


def _elsewhere(row: tuple) -> str:
    better = "better" if row.margin_site < 0 else "worse"
    return f"{row.other_site} is {abs(row.margin_site):.2f} eV {better}"


def _margins(table: pd.DataFrame) -> pd.DataFrame:
    """`margin_site`, `other_site`, `margin_bulk` and `margin` of a table, eV."""
    sound = table[(table.fault == "") & (table.impossible == "")]
    sound = sound.sort_values(["eform", "name"], kind="stable")
    # A dopant may choose among all sites; of vacancies only those that lack the same atoms compete.
    lacks = sound.removed.map(lambda text: ",".join(sorted(text.split(","))))
    lacks = lacks.where(sound.dopant == NO_DOPANT, "")
    rank = sound.groupby([sound.host, sound.strain, sound.dopant, lacks], sort=False)
    first, second = (
        rank.eform.transform(lambda e, k=k: e.iloc[k] if len(e) > k else np.nan) for k in (0, 1)
    )
    best, next_best = (
        rank.site.transform(lambda s, k=k: s.iloc[k] if len(s) > k else "") for k in (0, 1)
    )
    leads = rank.cumcount() == 0
    found = pd.DataFrame(index=table.index)
    found["margin_site"] = first.where(~leads, second) - sound.eform
    found["other_site"] = best.where(~leads, next_best)
    found["margin_bulk"] = -table.eform
    found["margin"] = found[["margin_site", "margin_bulk"]].min(axis=1)
    return found.round(DIGITS).fillna({"other_site": ""})


def _ranked(table: pd.DataFrame) -> pd.Index:
    """Keys in order: by the mean of three places, in energy, moment and margin."""
    places = (
        table.eform.rank() + table.spin.rank(ascending=False) + table.margin.rank(ascending=False)
    )
    order = pd.DataFrame({"places": places, "eform": table.eform, "name": table.name})
    return order.sort_values(["places", "eform", "name"], kind="stable").index


def thin(pool: pd.DataFrame, vectors: np.ndarray, length: int) -> pd.DataFrame:
    """Of the ranked candidates of `sieve` the best, then again and again the most unlike those.

    Args:
        pool: its "chosen" rows, in the order of their places.
        vectors: (n, D) latent vectors of these.
        length: how many stay.

    Returns:
        The rows with their final `stage` and `reason`.
    """
    pool = pool.copy()
    order, nearest = farthest_first(vectors, length)
    for number, index in enumerate(order):
        row = pool.iloc[index]
        pool.loc[row.name, "reason"] = _why(row, number, len(pool))
    names = pool.name.to_numpy()
    rest = sorted(set(range(len(pool))) - set(order))
    keys = pool.index[rest]
    pool.loc[keys, "stage"] = "alike"
    pool.loc[keys, "reason"] = [
        f"place {pool.place.iloc[k]}; most like {names[nearest[k]]}" for k in rest
    ]
    return pool


def farthest_first(
    vectors: np.ndarray, length: int, begun: Sequence[int] = ()
) -> tuple[list[int], np.ndarray]:
    """Rows that are unlike each other: the first, then again and again the one farthest from all.

    Args:
        vectors: (n, D); columns are brought to one scale.
        length: how many are chosen, beside those that the choice begins with.
        begun: rows that are chosen already; the first row where there is none.

    Returns:
        The chosen rows without `begun`, in order, and for every row the chosen one nearest to it.
    """
    scale = vectors.std(axis=0)
    scaled = (vectors - vectors.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    chosen = list(begun)
    apart, nearest = np.full(len(vectors), np.inf), np.zeros(len(vectors), int)
    if chosen:
        search = NearestNeighbors(n_neighbors=1).fit(scaled[chosen])
        distance, which = search.kneighbors(scaled)
        apart, nearest = distance[:, 0].round(6), np.array(chosen)[which[:, 0]]
        apart[chosen] = -1.0
    while len(chosen) - len(begun) < min(length, len(vectors) - len(begun)):
        one = int(apart.argmax())  # the first row where none is chosen
        chosen.append(one)
        apart, nearest = _nearer(scaled, one, apart, nearest)
    return chosen[len(begun) :], nearest


def _nearer(
    scaled: np.ndarray, one: int, apart: np.ndarray, nearest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    # Rounded, so that equal distances are equal on every processor.
    distance = np.linalg.norm(scaled - scaled[one], axis=1).round(6)
    nearest = np.where(distance < apart, one, nearest)
    apart = np.minimum(distance, apart)
    apart[one] = -1.0
    return apart, nearest


def _why(row: pd.Series, number: int, pool: int) -> str:
    """Why a candidate is on the short list."""
    how = "the best of all" if number == 0 else f"place {row.place}, and unlike those before it"
    site = (
        f"{row.margin_site:.2f} eV better than {row.other_site}"
        if row.other_site
        else "no other site to compare with"
    )
    bulk = (
        f"{row.margin_bulk:.2f} eV more stable than clean host and bulk"
        if row.margin_bulk > 0
        else f"{-row.margin_bulk:.2f} eV above clean host and bulk"
    )
    return f"{how} ({pool} were compared); {site}; {bulk}; {row.spin:.2f} μB"


def front(costs: np.ndarray) -> np.ndarray:
    """Rows that no other beats: none is as low in every column and lower in one (Pareto).

    Args:
        costs: (n, k), lower is better.

    Returns:
        (n,) bool; of equal rows all.
    """
    no_worse = (costs[:, None] <= costs[None]).all(axis=2)  # row against column
    better = (costs[:, None] < costs[None]).any(axis=2)
    return ~(no_worse & better).any(axis=0)


def funnel(table: pd.DataFrame) -> pd.DataFrame:
    """How many candidates each stage stops and how many are left, a row a stage."""
    counts = table.stage.value_counts()
    numbers = counts.reindex(list(STAGES), fill_value=0).to_numpy()
    stopped = np.where(np.array(list(STAGES)) == "chosen", 0, numbers)
    left = len(table) - stopped.cumsum()
    return pd.DataFrame(
        {"stage": list(STAGES), "reason": list(STAGES.values()), "stopped": stopped, "left": left}
    )
