"""Predictions that say how far to trust them: an ensemble with its intervals and its guard.

A predictor joins runs that differ by their seed alone. What it must know of the rows they learned
from is stored in one file beside their folders, so that a prediction needs no data set.
"""

import dataclasses
import gc
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ase import Atoms
from pydantic import RootModel, TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn
from tqdm import tqdm

from defectkit import DefectkitError
from defectkit.data.cleaning import loose_atoms
from defectkit.data.dataset import Dataset
from defectkit.graphs.build import (
    POSITIONS,
    CrystalGraph,
    GraphConfig,
    build_graph,
    chosen_atoms,
    read_defect,
)
from defectkit.graphs.dataset import GraphDataset, host_of
from defectkit.models.tabular.models import TABULAR
from defectkit.predict.domain import (
    NEIGHBOURS,
    Guard,
    Learned,
    Nearness,
    composition_vector,
    composition_vectors,
    host_part,
    predict_with_vectors,
)
from defectkit.predict.intervals import (
    ByKind,
    Expected,
    Magnetism,
    ensemble,
    mean_and_sigma,
)
from defectkit.predict.own import Own, read_own, training_hosts
from defectkit.predict.physics import flags
from defectkit.predict.surroundings import surroundings
from defectkit.structures.files import list_atoms
from defectkit.structures.names import one_line
from defectkit.structures.recognise import Recognition, keep_recognition
from defectkit.structures.record import DefectRecord, reduced_formula
from defectkit.structures.writing import atomic, make_folder
from defectkit.training.config import save_config, with_values
from defectkit.training.inference import (
    CARD,
    MAX_PAIRS,
    WEIGHTS,
    ModelCard,
    batches,
    load_model,
    predict_together,
)
from defectkit.training.prepared import graphs_of, learned_from, prepare
from defectkit.training.run import SETTINGS, SUMMARY, Run

HANDED_ON = (WEIGHTS, CARD, SUMMARY)  # of a member, beside its configuration; others hold labels
LEARNED = "learned"  # bytes in the file: `domain.Learned` of a network of sites, as JSON
MEMBERS = "members"  # in the file's own header: SHA-256 of the weights by name of the run folder
CHUNK = 256  # structures whose graphs are in memory at a time: whole batches of `predict`
CHUNK_PAIRS = 4 * MAX_PAIRS  # of atoms in these, at most
UNREAD = "unread"  # the verdict of a structure that has no prediction
NUMBERS = (
    "eform",
    "eform_sigma",
    "spin",
    "spin_sigma",
    "magnetic",
    "eform_lo",
    "eform_hi",
    "latent",
    "composition",
    "surroundings",
    "fit",
)
COLUMNS = (*NUMBERS, "reading", "verdict", "sentence", "impossible")
EQUAL = (0.0, 0.0)  # what cards of members may differ in does not count when they are compared
MAGNETISM = "magnetism"  # numbers of the file: those of `intervals.Magnetism`, in their order
EXPECTED = "expected"  # likewise, those of `intervals.Expected`; a column of `valid` as well
VALID = ["eform", "eform_pred", "eform_sigma"]  # then the distances, by name
KINDS = ["host", "many"]  # of the validation rows of sites: place in `hosts`, or -1; 0 or 1
FEW_SITES = 3  # a defect of more is another kind: three of them may stand alone
SAME_HOST = 1e-3  # of standardised numbers
HOSTS = "hosts"  # in the file: vectors of the hosts of the validation rows
DISTANCES = ("latent", "composition", "surroundings")  # the last where all atoms are nodes


@dataclass(frozen=True)
class Predictor:
    """An ensemble of networks that differ by their seed, with what judges its predictions.

    Attributes:
        members: folders of the runs.
        training: of the training rows, (n, D) each in half precision, by name of `DISTANCES`: their
            latent vectors in the first member, `domain.composition_vectors`, and, where all atoms
            are nodes, `surroundings`.
        valid: of the validation rows label, mean prediction and spread (`VALID`, eV), and the
            distances to the training rows; of networks of sites then `KINDS`.
        learned: which hosts, and of networks that see the defect's sites alone which changes, the
            training rows have.
        magnetism: what tells magnetic defects, calibrated on the validation rows; None where too
            few of these are magnetic.
        hosts: (H, 2 F) `domain.host_part` of their hosts, of networks of sites: intervals are
            calibrated by host, and by whether a defect has more than `FEW_SITES` sites. Where all
            atoms are nodes, no host has rows enough.
        expected: what error is to be expected, where all atoms are nodes; `valid` then has a column
            `expected` (eV) after the distances. Intervals are as wide in proportion.

    Networks that learned from further rows (`data.more`) are judged on those of them that were kept
    back as well.
    """

    members: tuple[Path, ...]
    training: dict[str, np.ndarray]
    valid: pd.DataFrame
    learned: Learned
    magnetism: Magnetism | None = None
    hosts: np.ndarray | None = None
    expected: Expected | None = None

    @classmethod
    def fit(cls, runs: Sequence[Run], rows: int | None = None) -> "Predictor":
        """Join finished runs of a network.

        Args:
            runs: of one configuration and several seeds, with their data set at hand.
            rows: how many training rows are kept for the distances, drawn at random, those of
                rare compositions first; all by default. Of the 10,402 of 2DMD 2,000 are enough,
                0.8 instead of 4 MB: the same validation rows stand out in composition, and latent
                distances rank alike (Spearman 0.89) and tell of errors as well as all rows' do.

        Raises DefectkitError for fewer than two runs, tables' models, runs that differ by more
        than their seed or do not differ at all, and for more rows than there are.
        """
        _check_runs(runs)
        first = runs[0]
        valid = ensemble([run.part("valid") for run in runs]).dropna(subset=["eform"])
        dataset, training = learned_from(first)
        config = first.config.graph
        learned = Learned.of(dataset, training, config)
        if rows is not None:
            training = _spread(training, composition_vectors(dataset.frame.loc[training]), rows)
        models = [load_model(run.folder)[0] for run in runs]
        shown = graphs_of(dataset, config)
        known = [_vectors(models[0], shown, training, dataset)]
        new = _vectors(models[0], shown, valid.index, dataset)
        tables, news = [valid.loc[new["latent"].index]], [new]
        prepared = prepare(first.config) if first.config.data.more else None
        if prepared and (further := prepared.further) is not None:
            graphs = graphs_of(further.dataset, config)
            if graphs.select(further.train):
                known.append(_vectors(models[0], graphs, further.train, further.dataset))
            if numbers := graphs.select(further.valid):
                news.append(_vectors(models[0], graphs, further.valid, further.dataset))
                members, _ = predict_together(
                    models, GraphDataset.from_graphs(graphs[k] for k in numbers)
                )
                labels = prepared.labels(members[0].index, further.dataset)
                tables.append(ensemble([labels.join(m.add_suffix("_pred")) for m in members]))
        arrays = {
            name: np.concatenate([one[name].to_numpy(np.float16) for one in known])
            for name in known[0]
        }
        nearness = _nearness(arrays)
        judged = pd.concat(
            table[VALID].join(_distances(nearness, vectors)) for table, vectors in zip(tables, news)
        )
        hosts = expected = None
        if config.nodes == "atoms":
            signs = judged[["eform_sigma", *nearness]]
            expected = Expected.fit(judged.eform_pred - judged.eform, judged.eform_pred, signs)
            judged[EXPECTED] = expected(judged.eform_pred, signs)
        else:
            hosts = np.unique(host_part(new["composition"].to_numpy(np.float32)), axis=0)
            judged = judged.join(_kinds(hosts, new["composition"], shown))
        return cls(
            tuple(run.folder for run in runs),
            arrays,
            judged.astype(np.float32),
            learned,
            Magnetism.fit(pd.concat(tables)),
            hosts,
            expected,
        )

    def hand_on(self, path: str | Path, replace: bool = False) -> None:
        """Write a predictor for others, with copies of its members beside it.

        Every member is copied to the folder NAME-SEED beside NAME.safetensors: weights, what they
        mean, configuration and summary. Neither labels nor predictions of rows go with them, of
        which errors are kept, nor the path of the data on this machine.

        Args:
            path: of the file.
            replace: whether what is there may be overwritten.

        Raises DefectkitError where something is there that may not be overwritten.
        """
        path = Path(path)
        copies = {}
        for folder in self.members:
            copies[folder] = path.with_name(f"{path.stem}-{Run(folder).summary['seed']}")
        there = [target for target in (*copies.values(), path) if target.exists()]
        if there and not replace:
            raise DefectkitError(
                f"{there[0]} is there already; say --replace to overwrite it, or name another file."
            )
        for folder, target in copies.items():
            make_folder(target)
            for name in HANDED_ON:
                with atomic(target / name) as part:
                    part.write_bytes((folder / name).read_bytes())
            config = with_values(Run(folder).config, {"data.path": None})
            save_config(config, target / SETTINGS)
        errors = self.valid.assign(eform=self.valid.eform - self.valid.eform_pred, eform_pred=0.0)
        dataclasses.replace(self, members=tuple(copies.values()), valid=errors).save(path, replace)

    def save(self, path: str | Path, replace: bool = False) -> None:
        """Write one file, whole or not at all; it must lie beside the folders of the members.

        Args:
            path: of the file.
            replace: whether a predictor of other members that is there may be overwritten.

        Raises DefectkitError where the file would lie elsewhere, or may not be overwritten.
        """
        path = Path(path)
        if any(folder.resolve().parent != path.resolve().parent for folder in self.members):
            raise DefectkitError(f"{path} must lie in the folder that holds its members.")
        if path.exists() and not replace:
            there, *_ = _read(path)
            if sorted(there) != sorted(folder.name for folder in self.members):
                raise DefectkitError(
                    f"{path} holds a predictor of {', '.join(there)}; say --replace to overwrite "
                    "it, or move it away."
                )
        text = RootModel[Learned](self.learned).model_dump_json()
        arrays = {
            **self.training,
            "valid": self.valid.to_numpy(np.float32),
            LEARNED: np.frombuffer(text.encode(), np.uint8),
        }
        if self.magnetism is not None:
            arrays[MAGNETISM] = np.array(dataclasses.astuple(self.magnetism))
        if (known := self.expected) is not None:
            arrays[EXPECTED] = np.array([known.constant, known.slope, *known.weights])
        if self.hosts is not None:
            arrays[HOSTS] = self.hosts
        # The format knows rows that follow each other only, and tables keep columns.
        arrays = {key: np.ascontiguousarray(values) for key, values in arrays.items()}
        hashes = {folder.name: _weights_hash(folder) for folder in self.members}
        with atomic(path) as part:
            part.write_bytes(save(arrays, {MEMBERS: json.dumps(hashes)}))

    @classmethod
    def load(cls, path: str | Path) -> "Predictor":
        """Read a file of `save`.

        Raises DefectkitError where it is missing or damaged, or its members do not lie beside it
        with the weights that it was made of.
        """
        path = Path(path)
        hashes, learned, arrays = _read(path)
        members = tuple(path.parent / name for name in hashes)
        for folder in members:
            if folder.resolve().parent != path.resolve().parent:
                raise DefectkitError(
                    f"{path} names the member {folder.name}, which does not lie beside it; make "
                    "the predictor again with `defectkit join`."
                )
            if _weights_hash(folder) != hashes[folder.name]:
                raise DefectkitError(
                    f"{path} was made of other weights than {folder / WEIGHTS} holds now; make it "
                    "again with `defectkit join`."
                )
        magnetism = Magnetism(*arrays.pop(MAGNETISM).tolist()) if MAGNETISM in arrays else None
        hosts, known = arrays.pop(HOSTS, None), arrays.pop(EXPECTED, None)
        columns = [*VALID, *(name for name in arrays if name in DISTANCES)]
        columns += [] if known is None else [EXPECTED]
        columns += [] if hosts is None else KINDS
        valid = pd.DataFrame(arrays.pop("valid"), columns=columns)
        expected = None
        if known is not None:
            constant, slope, *weights = known.tolist()
            expected = Expected(constant, slope, tuple(weights))
        return cls(members, arrays, valid, learned, magnetism, hosts, expected)

    def __call__(
        self,
        records: Sequence[DefectRecord],
        hosts: Mapping[str, Atoms],
        confidence: float = 0.9,
        doubts: Mapping[str, str] | None = None,
    ) -> pd.DataFrame:
        """Predict, and judge every prediction.

        Args:
            records: structures, in relaxed or unrelaxed positions as the members learned.
            hosts: the pristine host of each by name (`Dataset.hosts`).
            confidence: of the intervals.
            doubts: what else speaks against a record, in words, by uid.

        Returns:
            Columns `COLUMNS`, a row a record, indexed by uid: `eform` (eV) and `spin` (μB), means
            of the members, and their spreads `eform_sigma` and `spin_sigma`; `magnetic`, the chance
            that the moment is larger than `intervals.MAGNETIC`; the conformal interval
            `eform_lo` to `eform_hi`; the distances `latent`, `composition` and `surroundings` to
            the training rows (`domain.Nearness`; the last NaN where only sites are nodes); `fit`,
            how far (Å) the atoms stand from the sites of the host, and
            `reading`, what makes the structure doubtful, else empty; the guard's `verdict`
            (`domain.VERDICTS`) on all of these with its `sentence`; `impossible`, what is wrong
            with a value that cannot be (`physics.flags`), else empty. Where the networks learned
            the gap, these names have `gap` instead of `eform` (`columns`), and no interval
            reaches below zero.

            `spin` is NaN where no training row had a moment. Where some hosts had none, as MoS2 and
            WSe2 in 2DMD, whose calculations were not spin-polarised, `spin` in these is what the
            networks carry over from the other hosts, and no label has ever checked it.

            The confidence of an interval is that of all validation rows together where all atoms
            are nodes: hosts with few and difficult rows among them are covered less often. Networks
            of sites promise it by `KINDS`, where a kind has validation rows enough.

            A structure that cannot be read has no numbers: NaN, the verdict `UNREAD`, and the
            reason in `reading` and `sentence`. The others are predicted.

        Raises DefectkitError for a record that stands twice, or a confidence that is none.
        """
        records = list(records)
        self._conformal.factor(confidence)
        uids = pd.Index([record.uid for record in records], dtype=object, name="uid")
        if uids.has_duplicates:
            raise DefectkitError(
                f"The record {uids[uids.duplicated()][0]} stands twice; give every one once."
            )
        tables = [pd.DataFrame(columns=list(COLUMNS), index=uids[:0])]
        pairs = [record.natoms**2 for record in records]
        with tqdm(total=len(records), desc="predictions", delay=2, leave=False) as bar:
            for some in batches(records, pairs, CHUNK, CHUNK_PAIRS):
                with _without_gc():
                    tables.append(self._judged(some, hosts, confidence, doubts or {}))
                bar.update(len(some))
        table = pd.concat(tables[1:] or tables).loc[uids].reindex(columns=list(COLUMNS))
        return table.set_axis(self.columns, axis=1)

    @property
    def columns(self) -> list[str]:
        """`COLUMNS`, those of the energy called as the target that was learned."""
        return [name.replace("eform", self.card.target) for name in COLUMNS]

    def predict(
        self,
        structures: Any,
        host: str | Path | Atoms | None = None,
        relaxed: bool | None = None,
        confidence: float = 0.9,
    ) -> pd.DataFrame:
        """Predict structures of one's own, from files or objects; see `own.read_own`.

        Args:
            structures: files, folders, databases, ASE Atoms or pymatgen Structures, or one of them.
            host: a file, a pristine cell, or a name such as hBN; found where it is not given.
            relaxed: whether they are relaxed; told from the atoms where it is not given.
            confidence: of the intervals.

        Returns:
            What `__call__` gives, a row a structure, and before it `host`, `defect` in words,
            `input` (relaxed or unrelaxed), `assumed`, what nobody said, and `label_source`.
            A structure in other positions than the networks learned from is never "inside".

        Raises DefectkitError for a host that cannot be read or is not known.
        """
        known = training_hosts(self.card.data)
        return self.predict_own(read_own(structures, known, host, relaxed), confidence)

    def predict_own(self, own: Sequence[Own], confidence: float = 0.9) -> pd.DataFrame:
        """The table of `predict` of structures that are read already."""
        read = [one for one in own if not one.fault]
        doubts = {one.record.uid: self._misfit(one) for one in read}
        cells = {one.record.uid: one.host for one in read}
        # Two structures may have different hosts of one name.
        records = [dataclasses.replace(one.record, host=one.record.uid) for one in read]
        for one, record in zip(read, records):
            keep_recognition(record, one.host, one.found)
        table = self(records, cells, confidence, doubts)
        told = pd.DataFrame(
            {
                "host": [one.record.host for one in own],
                "defect": [one.defect for one in own],
                "input": ["" if one.fault else POSITIONS[not one.relaxed] for one in own],
                "assumed": ["; ".join(one.assumed) for one in own],
                "label_source": self.card.label_source,
            },
            index=pd.Index([one.record.uid for one in own], name="uid"),
        ).join(table)
        numbers = [
            name for name in self.columns if name.replace(self.card.target, "eform") in NUMBERS
        ]
        told = told.astype(dict.fromkeys(numbers, float))
        for one in own:
            if one.fault:
                words = {"verdict": UNREAD, "reading": one.fault, "sentence": one.fault}
                told.loc[one.record.uid, [*words, "impossible"]] = [*words.values(), ""]
        return told

    def graph_of(self, one: Own) -> CrystalGraph:
        """A structure as the networks see it."""
        return build_graph(one.record, self.card.graph, recognition=one.found)

    def _misfit(self, one: Own) -> str:
        """Why a structure is none that the networks can know, in words; empty where it may be."""
        doubts = []
        learned = self.card.graph.positions
        # The positions of 2DMD are those before relaxation, and there are no others.
        if self.card.data != "2dmd" and learned != POSITIONS[not one.relaxed]:
            doubts.append(
                f"it is {POSITIONS[not one.relaxed]}, and {learned} ones were learned from"
            )
        return "; ".join(doubts)

    def _judged(
        self,
        records: list[DefectRecord],
        hosts: Mapping[str, Atoms],
        confidence: float,
        doubts: Mapping[str, str],
    ) -> pd.DataFrame:
        """The table of a few records, those without numbers last."""
        read, faults = [], {}
        for record in records:
            try:
                read.append(_Structure.of(record, hosts, self.card.graph))
            except DefectkitError as error:
                faults[record.uid] = str(error)
        words = pd.DataFrame({"reading": faults, "sentence": faults}, list(faults), dtype=object)
        unread = words.assign(verdict=UNREAD, impossible="").reindex(columns=list(COLUMNS))
        unread = unread.astype(dict.fromkeys(NUMBERS, float))
        if not read:
            return unread
        graphs = GraphDataset.from_graphs([one.graph for one in read])
        uids = [one.graph.uid for one in read]
        known = pd.DataFrame([one.composition for one in read], uids)
        reading = [
            "; ".join(filter(None, [doubts.get(uid, ""), self._doubt(one)]))
            for uid, one in zip(uids, read)
        ]
        atoms = {record.uid: record.atoms for record in records}
        table, _ = self.judge(graphs, known, pd.Series(reading, uids), atoms, confidence)
        table["fit"] = [one.found.rms for one in read]
        return pd.concat([table, unread]) if faults else table

    def judge(
        self,
        graphs: GraphDataset,
        composition: pd.DataFrame,
        reading: pd.Series,
        atoms: Mapping[str, Atoms],
        confidence: float = 0.9,
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Predict graphs that are there already, and judge every prediction.

        Args:
            graphs: of the configuration that the members learned from; each has its uid.
            composition: `domain.composition_vectors`, by uid.
            reading: what makes a structure doubtful, in words, else empty; by uid.
            atoms: the structures by uid.
            confidence: of the intervals.

        Returns:
            Columns `COLUMNS` without `fit`, and the latent vectors (B, D) of the first member; both
            by uid.
        """
        members, vectors = predict_together(self.networks, graphs)
        table = pd.DataFrame(index=vectors.index)
        for target in ("eform", "spin"):
            table[target], table[f"{target}_sigma"] = mean_and_sigma(members, target)
        known = composition.loc[table.index]
        seen = {"latent": vectors, "composition": known}
        if "surroundings" in self.training:
            seen["surroundings"] = surroundings(graphs)
        table = table.join(_distances(self._nearness, seen))
        signs = self.signs(table)
        kinds = _kinds(self.hosts, known, graphs)
        told = table.assign(**signs.filter([EXPECTED]))
        half = self._conformal.half_width(told, kinds, confidence)
        card = self.card
        if card.spin_range is None:
            table[["spin", "spin_sigma"]] = np.nan
        table["magnetic"] = np.nan
        if self.magnetism is not None:
            table["magnetic"] = self.magnetism.chance(table.spin, table.spin_sigma)
        wrong = flags(table, card.eform_range, card.spin_range, atoms, card.target)
        lowest = 0.0 if card.target == "gap" else -np.inf
        table = table.assign(
            eform_lo=(table.eform - half).clip(lower=lowest),
            eform_hi=(table.eform + half).clip(lower=lowest),
            reading=reading,
            **self.guard.verdict(signs.assign(reading=reading)),
            impossible=wrong.apply(lambda row: "; ".join(filter(None, row)), axis=1),
        )
        return table, vectors

    def signs(self, table: pd.DataFrame) -> pd.DataFrame:
        """What the guard goes by, of rows of the table of `__call__`: columns as of `Guard.fit`."""
        signs = table[list(self.training)].assign(spread=table.eform_sigma)
        if self.expected is not None:
            told = table[["eform_sigma", *self.training]]
            signs[EXPECTED] = self.expected(table.eform, told)
        return signs

    def _doubt(self, one: "_Structure") -> str:
        """What speaks against the prediction of a structure, in words; empty where nothing does."""
        new = self.learned.doubt(one.found, one.atoms, one.host)
        return "; ".join(filter(None, [one.doubt, new]))

    @property
    def card(self) -> ModelCard:
        """Of the first member."""
        return self._models[0][1]

    @property
    def networks(self) -> list[nn.Module]:
        """The members, in evaluation mode."""
        return [model for model, _ in self._models]

    @cached_property
    def guard(self) -> Guard:
        """With the thresholds of the validation rows."""
        signs = self.valid.rename(columns={"eform_sigma": "spread"})
        known = [] if self.expected is None else [EXPECTED]
        return Guard.fit(signs[["spread", *self.training, *known]])

    @cached_property
    def _models(self) -> list[tuple[nn.Module, ModelCard]]:
        models = [load_model(folder) for folder in self.members]
        cards = [
            dataclasses.replace(c, eform_range=EQUAL, spin_range=c.spin_range and EQUAL)
            for _, c in models
        ]
        for folder, card in zip(self.members, cards):
            if card != cards[0]:
                raise DefectkitError(
                    f"{folder / CARD} tells of another model, other data or other labels than that "
                    f"of {self.members[0].name}; join runs that differ by their seed alone."
                )
        return models

    @cached_property
    def _conformal(self) -> ByKind:
        return ByKind.fit(self.valid, self.valid[[] if self.hosts is None else KINDS])

    @cached_property
    def _nearness(self) -> dict[str, Nearness]:
        return _nearness(self.training)


@dataclass(frozen=True, eq=False)
class _Structure:
    """What is known of a structure before it is predicted.

    Attributes:
        atoms: of the structure, in the positions that the members learned from.
        host: its pristine host.
        loose: indices of atoms that nothing holds.
        found: its defect.
        graph: with that defect.
        composition: `domain.composition_vector` of what the record says, and where it says
            nothing of its defect, of what was found. An element that is not the host's is a dopant
            in any case.
    """

    atoms: Atoms
    host: Atoms
    loose: np.ndarray
    found: Recognition
    graph: CrystalGraph
    composition: np.ndarray

    @classmethod
    def of(
        cls, record: DefectRecord, hosts: Mapping[str, Atoms], config: GraphConfig
    ) -> "_Structure":
        """Read one; DefectkitError where it cannot be."""
        host = host_of(record, hosts)
        # Of many records only these few keep what is found: it goes with the copy.
        found = read_defect(copy(record), host, config)
        removed, added = record.removed, set(record.atoms.symbols) - set(host.symbols)
        if not (record.dopant or record.removed or record.defecttype):
            removed, added = found.removed, set(record.atoms.symbols[found.defect_indices])
        dopant = record.dopant or ",".join(sorted(added))
        composition = composition_vector(reduced_formula(host), dopant, ",".join(removed))
        graph = build_graph(record, config, recognition=found)
        atoms = chosen_atoms(record, config).copy()
        atoms.pbc = True, True, False
        loose = loose_atoms(atoms)
        if config.nodes == "atoms":  # an atom that no edge reaches is not seen by its neighbours
            alone = graph.isolated[: len(atoms)].nonzero()[:, 0].numpy()
            loose = np.union1d(loose, alone)
        return cls(atoms, host, loose, found, graph, composition)

    @property
    def doubt(self) -> str:
        """What speaks against a prediction, in words; empty where nothing does."""
        detached = ""
        if len(self.loose):
            detached = f"{list_atoms(self.atoms, self.loose)} without a bond to the rest"
        return "; ".join(filter(None, [self.found.doubt, detached]))


@contextmanager
def _without_gc() -> Iterator[None]:
    """No search for reference cycles meanwhile.

    Graphs are many small objects and soon gone, but they would set it off, and it goes through all
    objects of all libraries: a quarter of the time of a prediction.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _spread(uids: list[str], composition: pd.DataFrame, rows: int) -> list[str]:
    """Of the uids `rows`, drawn at random, but of each composition as many as neighbours count.

    A composition that a whole training set holds would else be called unheard-of for being rare.
    """
    if rows > len(uids):
        raise DefectkitError(f"{rows} rows are to be kept, of {len(uids)}; keep fewer.")
    order = np.random.default_rng(0).permutation(uids).tolist()
    same = [row.tobytes() for row in composition.loc[order].to_numpy(np.float16)]
    rank = pd.Series(same).groupby(same).cumcount().to_numpy()
    chosen = np.argsort(rank >= NEIGHBOURS, kind="stable")
    return [order[k] for k in chosen[:rows]]


def _check_runs(runs: Sequence[Run]) -> None:
    """DefectkitError where runs are not the seeds of one network."""
    first = runs[0]
    for run in runs:
        run.check_finished()
    if any(run.config != first.config for run in runs):
        raise DefectkitError(
            "The runs differ by more than their seed; give runs of one configuration."
        )
    if first.config.model.name in TABULAR:
        raise DefectkitError(
            f"{first.config.model.name} keeps no weights and has no latent vectors; give runs "
            "of a network."
        )
    for run in runs:
        for claim in ("data_fingerprint", "split_fingerprint", "label_source"):
            if run.summary[claim] != first.summary[claim]:
                raise DefectkitError(
                    f"{run.folder} and {first.folder} differ in their {claim.replace('_', ' ')}; "
                    "join runs on the same rows of the same data."
                )
    by_seed: dict[int, Path] = {}
    by_weights: dict[str, Path] = {}
    for run in runs:
        for known, key in ((by_seed, run.summary["seed"]), (by_weights, _weights_hash(run.folder))):
            if key in known:
                raise DefectkitError(
                    f"{known[key]} and {run.folder} are the same run (seed {run.summary['seed']}): "
                    "their spread would say nothing. Give runs of different seeds."
                )
            known[key] = run.folder


def _weights_hash(folder: Path) -> str:
    """SHA-256 of the weights of a run."""
    try:
        with open(folder / WEIGHTS, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DefectkitError(
            f"{folder / WEIGHTS} is missing or cannot be read ({error}); train the model again or "
            "fetch the folder anew."
        ) from error


def _read(path: Path) -> tuple[dict[str, str], Learned, dict[str, np.ndarray]]:
    """What a file of `Predictor.save` holds: hashes of weights by member, learned, and arrays."""
    try:
        with safe_open(path, "numpy") as file:
            hashes = TypeAdapter(dict[str, str]).validate_json((file.metadata() or {})[MEMBERS])
            learned = TypeAdapter(Learned).validate_json(file.get_tensor(LEARNED).tobytes())
            names = (*DISTANCES, MAGNETISM, HOSTS, EXPECTED)
            there = [key for key in names if key in file.keys()]  # noqa: SIM118 - no dictionary
            arrays = {key: file.get_tensor(key) for key in (*there, "valid")}
        _check_arrays(hashes, arrays)
    except (OSError, SafetensorError, KeyError, ValueError, DefectkitError) as error:
        reason = one_line(error)
        raise DefectkitError(
            f"{path} is missing or holds no predictor ({reason}); make it with `defectkit join`."
        ) from error
    return hashes, learned, arrays


def _check_arrays(hashes: dict[str, str], arrays: dict[str, np.ndarray]) -> None:
    """ValueError where the parts of a file do not fit each other."""
    if len(set(hashes.values())) < 2 or len(set(hashes.values())) < len(hashes):
        raise ValueError("its members are not two different runs at least")
    if any(Path(name).name != name or name in ("", "..") or "\\" in name for name in hashes):
        raise ValueError("its members are no plain names of folders")
    valid = arrays["valid"]
    training = [values for name, values in arrays.items() if name in DISTANCES]
    sizes = {len(values) if values.ndim == 2 else -1 for values in training}
    if len(training) < 2 or len(sizes) > 1 or -1 in sizes:
        raise ValueError("its tables of training rows do not fit each other")
    kinds = KINDS if HOSTS in arrays else []
    width = len(VALID) + len(training) + len(kinds) + (EXPECTED in arrays)
    if valid.ndim != 2 or valid.shape[1] != width or not len(valid):
        raise ValueError("its table of validation rows has other columns")
    if kinds and arrays[HOSTS].ndim != 2:
        raise ValueError("the hosts of its validation rows are no table")
    if arrays.get(EXPECTED, np.zeros(len(training) + 3)).shape != (len(training) + 3,):
        raise ValueError("what tells the error to expect is not a number a sign")
    if arrays.get(MAGNETISM, np.zeros(3)).shape != (3,):
        raise ValueError("what tells magnetic defects is not three numbers")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("it holds values that are no numbers")


def _vectors(
    model: nn.Module, graphs: GraphDataset, uids: Sequence[str], dataset: Dataset
) -> dict[str, pd.DataFrame]:
    """By name of `DISTANCES`, the vectors of those of the rows that have a graph."""
    numbers = graphs.select(uids)
    _, latent = predict_with_vectors(model, graphs, numbers)
    vectors = {
        "latent": latent,
        "composition": composition_vectors(dataset.frame.loc[latent.index]),
    }
    if "host_bonds" not in graphs.tensors:
        vectors["surroundings"] = surroundings(graphs, numbers)
    return vectors


def _kinds(
    hosts: np.ndarray | None, composition: pd.DataFrame, graphs: GraphDataset
) -> pd.DataFrame:
    """Columns `KINDS` of rows with these vectors (rows, 4 F + 2) and graphs; none without hosts."""
    if hosts is None:
        return pd.DataFrame(index=composition.index)
    own = host_part(composition.to_numpy(np.float32))
    same = np.isclose(own[:, None], hosts, atol=SAME_HOST).all(axis=2)
    host = np.where(same.any(axis=1), same.argmax(axis=1), -1)
    many = graphs.n_nodes[graphs.select(composition.index)] > FEW_SITES
    return pd.DataFrame(dict(zip(KINDS, (host, many.astype(int)))), composition.index)


def _nearness(training: Mapping[str, np.ndarray]) -> dict[str, Nearness]:
    """To the training rows, by the name of the distance."""
    return {name: Nearness(pd.DataFrame(one.astype(float))) for name, one in training.items()}


def _distances(nearness: dict[str, Nearness], vectors: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Of rows with these vectors, by uid."""
    return pd.DataFrame({name: measure(vectors[name]) for name, measure in nearness.items()})
