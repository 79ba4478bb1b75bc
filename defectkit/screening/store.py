"""A screening on disk: one SQLite file that grows chunk by chunk and survives being killed.

A chunk is written with its name in one transaction, or not at all; a run that goes on asks only for
the chunks whose names are not there. What is computed does not depend on who computes it: every
worker takes a chunk alone, in one thread.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from ase import Atoms
from filelock import Timeout
from threadpoolctl import threadpool_limits

from defectkit import DefectkitError
from defectkit.predict.answer import UNRELAXED, shipped_predictor
from defectkit.predict.predictor import Predictor
from defectkit.screening.candidates import CHUNK, Chunk, Space
from defectkit.screening.funnel import Wish, funnel, predicted, sieve, thin
from defectkit.structures.names import one_line
from defectkit.structures.writing import ahead, executor, locked, make_folder

TABLE = "screen.db"
RESULTS = {
    "key": "TEXT PRIMARY KEY",
    "name": "TEXT",
    "host": "TEXT",
    "dopant": "TEXT",
    "removed": "TEXT",
    "kind": "TEXT",
    "site": "TEXT",
    "strain": "REAL",
    "natoms": "INTEGER",
    "fault": "TEXT",
    "eform": "REAL",
    "eform_sigma": "REAL",
    "eform_lo": "REAL",
    "eform_hi": "REAL",
    "spin": "REAL",
    "spin_sigma": "REAL",
    "latent": "REAL",
    "composition": "REAL",
    "surroundings": "REAL",
    "verdict": "TEXT",
    "sentence": "TEXT",
    "impossible": "TEXT",
    "vector": "BLOB",
}
FATES = {
    "key": "TEXT PRIMARY KEY",
    "stage": "TEXT",
    "reason": "TEXT",
    "place": "INTEGER",
    "margin_site": "REAL",
    "other_site": "TEXT",
    "margin_bulk": "REAL",
    "margin": "REAL",
}
CHUNKS = {"name": "TEXT PRIMARY KEY", "rows": "INTEGER"}
TABLES = {"results": RESULTS, "fates": FATES, "chunks": CHUNKS, "about": {"text": "TEXT"}}


@dataclass(frozen=True)
class Engine:
    """Who computes.

    Attributes:
        predictor: file of an ensemble for unrelaxed structures; that of the kit by default. Workers
            of a cluster must see it under the same path.
        workers: processes on this machine, one per core by default; 0 for this process alone.
        scheduler: address of a Dask scheduler to use instead.
        chunk: candidates that a worker takes at a time.
    """

    predictor: Path | None = None
    workers: int | None = None
    scheduler: str | None = None
    chunk: int = CHUNK

    def load(self) -> Predictor:
        """The ensemble; DefectkitError where it is none that screening can ask."""
        predictor = _loaded(self.predictor)
        graph = predictor.card.graph
        if (graph.positions, graph.nodes, predictor.card.target) != ("unrelaxed", "atoms", "eform"):
            raise DefectkitError(
                f"{self.predictor} reads {graph.positions} structures by their {graph.nodes} and "
                f"predicts {predictor.card.target}; screening needs one that learned formation "
                "energies from all atoms of unrelaxed structures."
            )
        return predictor


@dataclass(frozen=True)
class Screening:
    """A folder with a finished screening.

    Attributes:
        folder: that holds `TABLE`.
    """

    folder: Path

    @property
    def about(self) -> dict:
        """What was screened, with what, and for what wish."""
        with _finished(self.folder) as database:
            return json.loads(database.execute("SELECT text FROM about").fetchone()[0])

    @property
    def space(self) -> Space:
        """What was screened."""
        about = self.about
        hosts = {
            name: Atoms(one["symbols"], one["positions"], cell=one["cell"], pbc=(1, 1, 0))
            for name, one in about["hosts"].items()
        }
        rest = (tuple(about[name]) for name in ("dopants", "kinds", "sites", "strains"))
        return Space(hosts, *rest)

    def table(self, stage: str | None = None) -> pd.DataFrame:
        """All candidates with their fates, or those of one stage, by key, in order of place.

        Columns of `funnel.predicted` but `vector`, then those of `funnel.sieve`.
        """
        columns = [name for name in RESULTS if name != "vector"]
        query = f"SELECT {', '.join(f'results.{c}' for c in columns)}, fates.* FROM results "
        query += "JOIN fates ON results.key = fates.key"
        if stage is not None:
            query += " WHERE stage = ?"
        with _finished(self.folder) as database:
            table = pd.read_sql_query(query, database, params=None if stage is None else [stage])
        table = table.loc[:, ~table.columns.duplicated()].set_index("key")
        unranked = table.place == 0
        order = table.assign(unranked=unranked).sort_values(["unranked", "place", "name"]).index
        return table.loc[order]

    def vectors(self, keys: "pd.Index") -> np.ndarray:
        """(n, D) latent vectors of some candidates."""
        with _finished(self.folder) as database:
            return _vectors(database, list(keys))

    @property
    def funnel(self) -> pd.DataFrame:
        """`funnel.funnel` of all candidates."""
        with _finished(self.folder) as database:
            return funnel(pd.read_sql_query("SELECT stage FROM fates", database))


def screen(
    space: Space,
    folder: str | Path,
    wish: Wish | None = None,
    engine: Engine | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Screening:
    """Predict all candidates of a space, or those that are missing, and sieve them.

    Args:
        space: the candidates.
        folder: for the table; a screening of the same space that is there goes on.
        wish: what is looked for; that of `Wish` by default.
        engine: who computes; all cores by default.
        progress: called with how many candidates are done, of how many.

    Raises DefectkitError where the folder holds another screening or one that goes on elsewhere, or
    cannot be written, and where a worker or the scheduler is lost: what is done stays.
    """
    wish, engine = wish or Wish(), engine or Engine()
    folder, total = make_folder(folder), len(space)
    if not total:
        raise DefectkitError(
            "There is no candidate: no site of these hosts is of these kinds; choose others."
        )
    source = engine.load().card.label_source
    about = _about(space, engine, wish, source)
    try:
        with locked(folder / f"{TABLE}.lock"), _opened(folder) as database:
            _begin(database, folder, about)
            names = {name for (name,) in database.execute("SELECT name FROM chunks")}
            done = database.execute("SELECT COUNT(*) FROM results").fetchone()[0]
            progress(done, total)
            todo = (chunk for chunk in space.chunks(engine.chunk) if chunk.name not in names)
            for name, rows in _computed(todo, engine, wish.confidence):
                keep(database, name, rows)
                done += len(rows)
                progress(done, total)
            _judge(database, wish)
    except Timeout as error:
        raise DefectkitError(
            f"{folder} is being screened by another process; wait for it, or name another folder."
        ) from error
    except BrokenProcessPool as error:
        raise DefectkitError(
            f"A worker process ended before its time, perhaps for want of memory; what is done is "
            f"in {folder}: run the same again, with fewer workers."
        ) from error
    return Screening(folder)


def _computed(
    chunks: Iterator[Chunk], engine: Engine, confidence: float
) -> Iterator[tuple[str, pd.DataFrame]]:
    """The name of each chunk, and its table, in order."""
    tasks = ((chunk, engine.predictor, confidence) for chunk in chunks)
    if engine.workers == 0 and engine.scheduler is None:
        yield from (work_on(*task) for task in tasks)
        return
    with executor(engine.workers or os.cpu_count(), engine.scheduler) as pool:
        yield from ahead(pool, work_on, tasks)


def work_on(chunk: Chunk, predictor: Path | None, confidence: float) -> tuple[str, pd.DataFrame]:
    """What a worker does: the name of a chunk and its table; the same wherever it is done."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums of several threads differ in their last digits
    try:
        with threadpool_limits(1):
            return chunk.name, predicted(chunk, _loaded(predictor), confidence)
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=2)
def _loaded(predictor: Path | None) -> Predictor:
    return shipped_predictor(UNRELAXED) if predictor is None else Predictor.load(predictor)


def _about(space: Space, engine: Engine, wish: Wish, source: str) -> dict:
    """What a screening is: another one of these does not go on in the same folder."""
    return {
        "hosts": {
            host: {
                "symbols": list(unit.symbols),
                "positions": unit.positions.tolist(),
                "cell": unit.cell.array.tolist(),
            }
            for host, unit in space.hosts.items()
        },
        "dopants": list(space.dopants),
        "kinds": list(space.kinds),
        "sites": list(space.sites),
        "strains": list(space.strains),
        "chunk": engine.chunk,
        "confidence": wish.confidence,
        "predictor": [folder.name for folder in engine.load().members],
        "label_source": source,
        "wish": asdict(wish),
    }


@contextmanager
def _opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """The table of a folder; DefectkitError where SQLite cannot read or write it."""
    path = folder / TABLE
    try:
        with closing(sqlite3.connect(path)) as database:
            yield database
    except (sqlite3.Error, pd.errors.DatabaseError) as error:
        raise DefectkitError(
            f"{path} cannot be read or written ({one_line(error)}); give another folder, or make "
            "room: what it holds stays."
        ) from error


@contextmanager
def _finished(folder: Path) -> Iterator[sqlite3.Connection]:
    """The table of a folder that is there, which opening it would make where it is not."""
    if not (folder / TABLE).is_file():
        raise DefectkitError(f"{folder} holds no screening; make one with `defectkit screen`.")
    with _opened(folder) as database:
        yield database


def _begin(database: sqlite3.Connection, folder: Path, about: dict) -> None:
    """Make the tables, or see that they are of the same screening."""
    with database:
        for name, columns in TABLES.items():
            body = ", ".join(f"{column} {kind}" for column, kind in columns.items())
            database.execute(f"CREATE TABLE IF NOT EXISTS {name} ({body})")
        there = database.execute("SELECT text FROM about").fetchone()
        before = json.loads(there[0]) if there else about
        changed = sorted(name for name in about if name != "wish" and about[name] != before[name])
        if changed:
            raise DefectkitError(
                f"{folder} holds a screening with another choice of {', '.join(changed)}; name "
                "another folder, or repeat that choice."
            )
        database.execute("DELETE FROM about")
        database.execute("INSERT INTO about VALUES (?)", [json.dumps(about)])


def keep(database: sqlite3.Connection, name: str, rows: pd.DataFrame) -> None:
    """Write a chunk, all of it or nothing."""
    with database:
        database.execute("INSERT INTO chunks VALUES (?, ?)", [name, len(rows)])
        _write(database, "results", RESULTS, rows)


def _judge(database: sqlite3.Connection, wish: Wish) -> None:
    """Let all candidates through the funnel, and write where each of them ended."""
    columns = ", ".join(name for name in RESULTS if name != "vector")
    table = pd.read_sql_query(f"SELECT {columns} FROM results", database).set_index("key")
    table = table.fillna(dict.fromkeys(("fault", "sentence", "impossible"), ""))
    table = sieve(table, wish)
    pool = table[table.stage == "chosen"].sort_values("place")
    if len(pool):
        ends = thin(pool, _vectors(database, list(pool.index)), wish.length)
        table.loc[ends.index, ["stage", "reason"]] = ends[["stage", "reason"]]
    with database:
        database.execute("DELETE FROM fates")
        _write(database, "fates", FATES, table)


def _write(
    database: sqlite3.Connection, name: str, columns: dict[str, str], rows: pd.DataFrame
) -> None:
    plain = rows.reset_index()[list(columns)].astype(object)
    plain = plain.where(plain.notna(), None)
    marks = ", ".join("?" * len(columns))
    database.executemany(f"INSERT INTO {name} VALUES ({marks})", plain.to_numpy().tolist())


def _vectors(database: sqlite3.Connection, keys: list[str]) -> np.ndarray:
    """(n, D) latent vectors, in the order of the keys."""
    wanted = set(keys)
    every = database.execute("SELECT key, vector FROM results WHERE vector != x''")
    found = {key: vector for key, vector in every if key in wanted}
    return np.array([np.frombuffer(found[key], np.float16) for key in keys], np.float32)
