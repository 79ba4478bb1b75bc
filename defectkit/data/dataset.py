"""A set of defects of one source: records, table, pristine hosts, fingerprint."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
from ase import Atoms
from ase.formula import Formula

from defectkit import DefectkitError
from defectkit.structures.record import DefectRecord, to_frame

IDENTITY = ("uid", "host", "dopant", "defecttype", "site", "label_source")
GRID = 2.0**-16  # Å, 0.00002; no decimal of few digits lies half-way between two steps


@dataclass(frozen=True, eq=False)
class Dataset:
    """Defects of one source.

    Attributes:
        name: the source's name, for example "demo".
        label_source: what computed the labels, of every record the same.
        records: one `DefectRecord` a row; their uids are unique.
        hosts: pristine unit cell or supercell by host name, where the source has it (Å).
        families: prototype family by host name; empty where the source says nothing.
    """

    name: str
    label_source: str
    records: list[DefectRecord] = field(repr=False)
    hosts: dict[str, Atoms] = field(default_factory=dict, repr=False)
    families: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if len(self._by_uid) < len(self.records):
            seen: set[str] = set()
            twice = next(r.uid for r in self.records if r.uid in seen or seen.add(r.uid))
            raise DefectkitError(f"{self.name}: the id {twice} stands twice; make ids unique.")
        for record in self.records:
            source = self.records[0].label_source
            if record.label_source != source:
                raise DefectkitError(
                    f"{self.name}: {record.uid} carries labels of {record.label_source} among "
                    f"labels of {source}, whose zero and accuracy differ; keep one data set for "
                    "each."
                )

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, uid: str) -> DefectRecord:
        try:
            return self._by_uid[uid]
        except KeyError:
            raise DefectkitError(f"{self.name} has no row with the id {uid}.") from None

    @cached_property
    def _by_uid(self) -> dict[str, DefectRecord]:
        return {record.uid: record for record in self.records}

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The table of all rows by uid; columns and units as in `structures.record.COLUMNS`."""
        return to_frame(self.records, self.hosts)

    def need_labels(self, purpose: str) -> None:
        """DefectkitError where no row has a formation energy, which `purpose` needs."""
        if not any(np.isfinite(record.eform) for record in self.records):
            raise DefectkitError(
                f"{self.name}: none of {len(self)} rows has a formation energy, and {purpose} "
                "needs some; fill in the column eform (eV)."
            )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all that decides graphs, labels and splits, whatever the order of rows.

        Of every row its texts (`IDENTITY`), structure before and after relaxation, sites, labels
        and moments; of the hosts that rows name, structure and family. Numbers are rounded to
        `GRID` first: what a reader computes from fractional coordinates differs in the last digit
        from processor to processor.
        """
        digest = hashlib.sha256()
        for uid in sorted(self._by_uid):
            record = self._by_uid[uid]
            _add(digest, *(str(getattr(record, name)) for name in IDENTITY), *record.removed)
            _add_atoms(digest, record.atoms)
            for positions in (record.unrelaxed, record.defect_positions):
                _add(digest, "" if positions is None else _rounded(positions))
            for values in (record.site_magmoms, [record.eform, record.spin]):
                _add(digest, "" if values is None else np.asarray(values, "<f8").tobytes())
        for name in sorted({record.host for record in self.records}):
            _add(digest, name, self.families.get(name, ""))
            if name in self.hosts:
                _add_atoms(digest, self.hosts[name])
        return digest.hexdigest()

    def subset(self, uids: Iterable[str]) -> "Dataset":
        """The rows named, in that order, with the same hosts."""
        return replace(self, records=[self[uid] for uid in uids])


def _add(digest: "hashlib._Hash", *parts: str | bytes) -> None:
    """Feed the parts, each after its length, so that other parts cannot give the same bytes."""
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)


def _add_atoms(digest: "hashlib._Hash", atoms: Atoms) -> None:
    _add(digest, atoms.numbers.astype("<i8").tobytes(), bytes(atoms.pbc.tolist()))
    _add(digest, _rounded(atoms.cell.array), _rounded(atoms.positions))


def _rounded(values: np.ndarray) -> bytes:
    """Values in Å, of any shape, rounded to steps of `GRID`; zero has one sign."""
    return (np.round(np.asarray(values, float) / GRID) + 0.0).astype("<f8").tobytes()


def family_name(formula: Formula, spacegroup: int) -> str:
    """Stoichiometry and space group, as in "AB2 (187)"."""
    return f"{formula.stoichiometry()[0]} ({spacegroup})"
