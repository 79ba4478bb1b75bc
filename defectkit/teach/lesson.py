"""Helpers of notebooks for data sets that lack what a step needs.

A student's own files may hold no adsorbate, no moment, no energy, a single host or none. The
helpers take another row or pass a step over, and print one sentence on why.
"""

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from defectkit import DefectkitError
from defectkit.data.cleaning import clean
from defectkit.data.dataset import Dataset
from defectkit.structures.recognise import recognised
from defectkit.structures.record import DefectRecord

EASY_TO_SEE = 40  # atoms: examples come from cells no larger than this, where there are any


def has(values: pd.Series, what: str, least: int = 1) -> bool:
    """Whether `values` (texts or numbers) hold at least `least` different ones; if not, say so.

    Empty texts and NaN do not count. `what` names the values in the plural.
    """
    different = values[values.notna() & (values != "")].nunique()
    if different >= least:
        return True
    count = f"fewer than {least} different" if different else "no"
    print(f"This data set has {count} {what}: this step is passed over.")
    return False


def example(data: Dataset, rows: pd.DataFrame, what: str, seed: int = 0) -> DefectRecord:
    """One of `rows` at random, of the small cells where there are any, with a known host.

    Where there is none, another row of the data set stands in, and a sentence says so. `what`
    names what `rows` are in the singular, such as "adsorbate".
    """
    hosted = data.frame.host.isin(list(data.hosts))
    chosen = rows[hosted[rows.index]]
    missing = chosen.empty
    if missing:
        chosen = data.frame[hosted] if hosted.any() else data.frame
    small = chosen[chosen.natoms <= max(EASY_TO_SEE, chosen.natoms.min())]
    record = data[small.sample(1, random_state=seed).index[0]]
    if missing:
        print(f"This data set has no {what}; {record.name or record.uid} stands in.")
    return record


def clean_rows(data: Dataset, quiet: bool = False) -> Dataset:
    """The rows that the strict rules leave; where they leave none, those with an energy, or all.

    A sentence says so, unless `quiet`.
    """
    kept = clean(data, "strict").dataset
    if len(kept):
        return kept
    labelled = data.frame.index[data.frame.eform.notna()]
    if not quiet:
        others = "those that have an energy" if len(labelled) else "all, without energies"
        print(
            f"The strict rules leave none of {len(data):,} rows (see section 7 of notebook 01); we "
            f"go on with {others}."
        )
    return data.subset(labelled) if len(labelled) else data


def defect_of(data: Dataset, record: DefectRecord) -> tuple[np.ndarray, np.ndarray]:
    """Indices of a record's defect atoms and positions, (k, 3) Å, of its vacancies.

    Both are empty where its host cannot tell, and a sentence says why.
    """
    try:
        if record.host in data.hosts:
            found = recognised(record, data.hosts[record.host])
            return found.defect_indices, found.vacancy_positions
        reason = f"its pristine host {record.host!r} is not among the data"
    except DefectkitError as refusal:
        reason = str(refusal)
    print(f"Which atom of {record.uid} is the defect stays open: {reason}.")
    return np.zeros(0, dtype=int), np.zeros((0, 3))


def caption(record: DefectRecord) -> str:
    """Name, chemistry, type and source of the labels of a record, for above a figure."""
    host = f"in {record.host}" if record.host else ""
    missing = f"{','.join(record.removed)} missing" if record.removed else ""
    what = f"{record.dopant or missing} {host}".strip()
    words = ", ".join(part for part in (what, record.defecttype) if part)
    name = record.name or record.uid
    return f"{name}{f': {words}' if words else ''} ({record.label_source})"


def table(frame: pd.DataFrame) -> Styler:
    """A table to show, whose texts are not cut and stand on the left."""
    texts = [name for name in frame if not pd.api.types.is_numeric_dtype(frame[name])]
    left = {"text-align": "left"}
    headers = [{"selector": "th", "props": [("text-align", "left")]}]
    return frame.style.set_properties(subset=texts, **left).set_table_styles(headers)
