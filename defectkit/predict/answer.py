"""What the shipped networks say of a person's structures: which of them are asked, in one table."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms

from defectkit import DefectkitError
from defectkit.predict.own import Own, read_own, training_hosts
from defectkit.predict.predictor import UNREAD, Predictor
from defectkit.structures.record import SiteKind, reduced_formula
from defectkit.structures.writing import atomic
from defectkit.training.pretrained import CHECKPOINTS

NO_MOMENTS = ("MoS2", "WSe2")  # hosts of 2DMD whose calculations were not spin-polarised
RELAXED, UNRELAXED, SITES = "hybrid", "hybrid-unrelaxed", "sites"


@lru_cache(maxsize=4)
def shipped_predictor(name: str) -> Predictor:
    """The predictor `name` that comes with the kit, read once."""
    return Predictor.load(CHECKPOINTS / f"{name}.safetensors")


def answer(
    structures: Any,
    host: str | Path | Atoms | None = None,
    relaxed: bool | None = None,
    confidence: float = 0.9,
) -> pd.DataFrame:
    """Predict structures of one's own with the shipped networks that know such ones.

    Relaxed structures go to `hybrid`, others to `hybrid-unrelaxed`; of those, vacancies and
    substitutions in the hosts of 2DMD go to `sites` as well, whose labels are of DFT.

    Args:
        structures: files, folders, databases, ASE Atoms or pymatgen Structures, or one of them.
        host: a file, a pristine cell, or a name such as hBN; found where it is not given.
        relaxed: whether they are relaxed; told from the atoms where it is not given.
        confidence: of the intervals.

    Returns:
        Its table with a column `model`; a row a structure and network. `label_source` says what
        computed the labels that each learned from: rows of different sources cannot be compared.

    Raises DefectkitError for a host that cannot be read or is not known.
    """
    return ask(read(structures, host, relaxed), confidence)


def read(
    structures: Any, host: str | Path | Atoms | None = None, relaxed: bool | None = None
) -> list[Own]:
    """Structures of one's own as the shipped networks need them; see `own.read_own`."""
    return read_own(structures, training_hosts("2dmd") | training_hosts("demo"), host, relaxed)


def all_atom_predictor(one: Own) -> Predictor:
    """The shipped networks of all atoms that a structure goes to."""
    return shipped_predictor(RELAXED if one.relaxed else UNRELAXED)


def ask(own: Sequence[Own], confidence: float = 0.9) -> pd.DataFrame:
    """The table of `answer` of structures that are read already."""
    asked = {
        name: [one for one in own if _knows(name, one)] for name in (RELAXED, UNRELAXED, SITES)
    }
    asked[next((name for name, some in asked.items() if some), RELAXED)] += [
        one for one in own if one.fault
    ]
    tables = [
        shipped_predictor(name).predict_own(some, confidence).assign(model=name)
        for name, some in asked.items()
        if some
    ]
    table = pd.concat(tables)
    silent = [one.record.uid for one in own if one.host and reduced_formula(one.host) in NO_MOMENTS]
    table.loc[
        (table.model == SITES) & table.index.isin(silent), ["spin", "spin_sigma", "magnetic"]
    ] = np.nan
    order = {one.record.uid: number for number, one in enumerate(own)}
    return table.sort_index(key=lambda uids: uids.map(order), kind="stable")


def sentences(table: pd.DataFrame) -> Iterator[str]:
    """The table in words: a line a structure, and below it one for every network and assumption."""
    for uid, rows in table.groupby(level=0, sort=False):
        first = rows.iloc[0]
        if first.verdict == UNREAD:
            yield f"{uid}: {first.sentence}"
            continue
        yield f"{uid}: {first.defect} in {first.host}, {first.input}"
        if first.assumed:
            yield f"  assumed: {first.assumed}"
        for row in rows.itertuples():
            moment = "" if pd.isna(row.spin) else f", moment {row.spin:.2f} μB"
            if not pd.isna(row.magnetic):
                moment += f" (magnetic: {row.magnetic:.0%})"
            yield (
                f"  {row.label_source}: formation energy {row.eform:.2f} eV "
                f"({row.eform_lo:.2f} to {row.eform_hi:.2f}){moment}"
            )
            yield f"    {row.verdict}: {row.sentence}"


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table of `answer` as .csv or .json; DefectkitError for another suffix."""
    check_table_name(path)
    plain = table.reset_index()
    with atomic(path) as part:
        if path.suffix.lower() == ".json":
            plain.to_json(part, orient="records", indent=1, force_ascii=False)
        else:
            plain.to_csv(part, index=False)


def check_table_name(path: Path) -> None:
    """DefectkitError where a name is none that `write_table` writes to."""
    if path.suffix.lower() not in (".csv", ".json"):
        raise DefectkitError(f"{path}: name a table that ends in .csv or .json.")


def _knows(name: str, one: Own) -> bool:
    """Whether a network is asked about a structure."""
    if one.fault:
        return False
    if name != SITES:
        return one.relaxed == (name == RELAXED)
    formulas = {reduced_formula(host) for host in training_hosts("2dmd").values()}
    kinds = set(one.found.site_kind[one.found.defect_indices])
    return (
        not one.relaxed
        and reduced_formula(one.host) in formulas
        and kinds <= {SiteKind.SUBSTITUTION, SiteKind.VACANCY}
    )
