"""What a screening hands to those who compute: structures, why they were chosen, in which units."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
from ase import Atoms
from ase.db import connect

from defectkit.data.demo import Candidate
from defectkit.screening.candidates import Family
from defectkit.screening.store import Screening
from defectkit.structures.files import write_structure
from defectkit.structures.writing import atomic, make_folder, write_text

WINNERS, LIST, FUNNEL, README = "winners.db", "shortlist.csv", "funnel.csv", "README.md"
STRUCTURES = "structures"
COLUMNS = (
    "place",
    "name",
    "file",
    "host",
    "dopant",
    "removed",
    "kind",
    "site",
    "strain",
    "natoms",
    "eform",
    "eform_lo",
    "eform_hi",
    "eform_sigma",
    "spin",
    "spin_sigma",
    "margin_site",
    "other_site",
    "margin_bulk",
    "reason",
    "key",
)


def hand_over(screening: Screening) -> list[Path]:
    """Write the short list into the folder of a finished screening.

    A POSCAR for each candidate, a table that says why it was chosen, an ASE database of the same,
    the funnel, and a page with units and the source of the labels. Files of an earlier short list
    are replaced.

    Args:
        screening: finished.

    Returns:
        The files and the folder of structures.

    Raises DefectkitError where one cannot be written.
    """
    folder, chosen = screening.folder, screening.table("chosen")
    structures = make_folder(folder / STRUCTURES)
    for old in structures.glob("*.vasp"):
        old.unlink()
    made = dict(structures_of(screening, chosen.index))
    chosen = chosen.reset_index()
    chosen["file"] = [f"{STRUCTURES}/{file_name(row)}" for row in chosen.itertuples()]
    for row in chosen.itertuples():
        write_structure(made[row.key][1], folder / row.file)
    with atomic(folder / LIST) as part:
        chosen[list(COLUMNS)].to_csv(part, index=False, quoting=csv.QUOTE_MINIMAL)
    with atomic(folder / FUNNEL) as part:
        screening.funnel.to_csv(part, index=False)
    about = screening.about
    with atomic(folder / WINNERS) as part:
        part.unlink()  # a database is begun where there is no file
        _write_database(chosen, made, about["label_source"], part)
    write_text(folder / README, _page(about, chosen, screening.funnel))
    return [folder / name for name in (WINNERS, LIST, FUNNEL, README, STRUCTURES)]


def structures_of(
    screening: Screening, keys: Iterable[str]
) -> Iterator[tuple[str, tuple[Candidate, Atoms]]]:
    """The key of each candidate with what it is and its unrelaxed structure."""
    for key, family in families_of(screening, keys):
        (candidate,) = family.candidates
        yield key, (candidate, family.defect(candidate.dopant).atoms)


def families_of(screening: Screening, keys: Iterable[str]) -> Iterator[tuple[str, Family]]:
    """The key of each candidate with its family, of which it is the only one left."""
    wanted = set(keys)
    for family in screening.space.families():
        for key, dopant in zip(family.keys, family.dopants, strict=True):
            if key in wanted:
                yield key, replace(family, dopants=(dopant,))


def file_name(row: tuple) -> str:
    """Of a candidate's POSCAR: its place, so that a folder is in order, and its name."""
    plain = "".join(c if c.isalnum() or c in "+-." else "_" for c in row.name)
    return f"{row.place:04d}_{plain}.vasp"


def _write_database(
    chosen: pd.DataFrame, made: dict[str, tuple], label_source: str, path: Path
) -> None:
    """An ASE database; its numbers carry `predicted`, as nobody has computed them."""
    with connect(path, type="db", use_lock_file=False) as database:
        for row in chosen.itertuples():
            pairs = {
                "name": row.name,
                "host": row.host,
                "dopant": row.dopant,
                "removed": row.removed,
                "defecttype": row.kind,
                "site": row.site,
                "strain": row.strain,
                "predicted_eform": row.eform,
                "predicted_eform_lo": row.eform_lo,
                "predicted_eform_hi": row.eform_hi,
                "predicted_spin": row.spin,
                "place": int(row.place),
                "candidate": row.key,
                "label_source": f"predicted from {label_source}",
            }
            data = {"reason": row.reason}
            database.write(made[row.key][1], key_value_pairs=pairs, data=data)


def _page(about: dict, chosen: pd.DataFrame, stages: pd.DataFrame) -> str:
    wish = about["wish"]
    ceiling = "any" if wish["most_eform"] is None else f"at most {wish['most_eform']:g} eV"
    strains = ", ".join(f"{strain:+.1%}" for strain in about["strains"])
    return f"""# {len(chosen)} of {len(chosen) + int(stages.stopped.sum()):,} candidates

Written by `defectkit screen`. **All energies and moments here are predictions** of an ensemble of
{len(about["predictor"])} networks ({", ".join(about["predictor"])}) that learned from labels of
**{about["label_source"]}**. None of them has been computed; zero and accuracy are those of that
source.

* `{LIST}`: the short list, one row a candidate, with the reason for each.
* `{STRUCTURES}/`: a POSCAR of each, **unrelaxed**: where a recipe puts the atoms.
* `{WINNERS}`: the same as an ASE database.
* `{FUNNEL}`: how many candidates each stage stopped.
* `screen.db`: all candidates (table `results`) and where each ended and why (table `fates`).

## Units

* `eform`, `eform_lo`, `eform_hi`: formation energy after relaxation and its
  {wish["confidence"]:.0%} interval, eV, against the pristine supercell and the elements' own phases
* `eform_sigma`, `spin_sigma`: spread of the networks, eV and μB
* `spin`: magnetic moment of the whole cell, host included, μB
* `margin_site`: eV by which `other_site`, the best other site of the dopant in the host, is worse
* `margin_bulk`: eV by which the defect is more stable than the clean host beside the dopant's bulk,
  which is minus `eform`
* `strain`: biaxial, of the host, without unit
* `place`: in the ranking by energy, moment and margin together

## What was screened

Hosts {", ".join(about["hosts"])}; {len(about["dopants"])} dopants; {", ".join(about["kinds"])};
sites {", ".join(about["sites"]) or "all"}; strains {strains}.

Asked for: an interval of at most {wish["most_width"]:g} eV, a formation energy of {ceiling}, a
moment of at least {wish["least_spin"]:g} μB, a margin of at least {wish["least_margin"]:g} eV over
other sites.

{stages.to_markdown(index=False)}
"""
