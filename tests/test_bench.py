import numpy as np
import pandas as pd
import pytest
from ase.neighborlist import neighbor_list
from pymatgen.io.ase import AseAtomsAdaptor
from typer.testing import CliRunner

from defectkit import DefectkitError, bench
from defectkit.bench import graphs
from defectkit.cli import app
from defectkit.graphs.periodic import nearest_edges

COLUMNS = [
    "builder",
    "n_atoms",
    "ms_per_structure",
    "peak_mb",
    "versions",
    "machine",
    "command",
    "seed",
]


@pytest.mark.parametrize("n_atoms", graphs.SIZES)
def test_structures_have_the_size_asked_for_and_no_overlap(n_atoms):
    atoms = graphs.mos2_with_adatoms(n_atoms, seed=0)
    assert len(atoms) == n_atoms
    assert "Au" in atoms.symbols
    assert neighbor_list("d", atoms, 5.0).min() > 2.0
    a, b = atoms.cell.lengths()[:2]
    assert b / a < 4.1
    assert graphs.mos2_with_adatoms(n_atoms, seed=0) == atoms
    assert graphs.mos2_with_adatoms(n_atoms, seed=1) != atoms


def test_the_plain_loop_finds_the_same_nearest_neighbours():
    atoms = graphs.mos2_with_adatoms(28, seed=0)
    pos, cell = atoms.positions, atoms.cell.array
    j, i, vectors = map(np.asarray, graphs.nearest_loop(AseAtomsAdaptor.get_structure(atoms)))
    shift = np.rint((vectors - pos[j] + pos[i]) @ np.linalg.inv(cell)).astype(int)
    plain = set(map(tuple, np.column_stack([j, i, shift]).tolist()))
    assert len(plain) == len(vectors)
    (j, i), shift = nearest_edges(pos, cell, atoms.pbc, 12)
    back_and_forth = np.concatenate(
        [np.column_stack([j, i, shift]), np.column_stack([i, j, -shift])]
    )
    assert plain == set(map(tuple, back_and_forth.tolist()))


def test_every_builder_is_measured_in_its_own_process(monkeypatch):
    few = ("vesin", "ase")  # vesin loads torch where it is installed
    monkeypatch.setattr(graphs, "BUILDERS", {name: graphs.BUILDERS[name] for name in few})
    rows = graphs.rows(seed=0, sizes=(10, 7))
    assert [(row["builder"], row["n_atoms"]) for row in rows] == [
        (name, n) for name in few for n in (7, 10)
    ]
    assert all(row["ms_per_structure"] > 0 for row in rows)
    with_torch, without = rows[0], rows[2]
    assert with_torch["peak_mb"] > without["peak_mb"] + 50
    assert "vesin" in with_torch["versions"]


def test_command_writes_the_table(tmp_path, monkeypatch):
    def rows(seed):
        return [
            {"builder": "b", "n_atoms": 3, "ms_per_structure": 1.5, "peak_mb": 9, "versions": "x 1"}
        ]

    monkeypatch.setattr(graphs, "rows", rows)
    result = CliRunner().invoke(app, ["bench", "graphs", "--seed", "5", "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "graphs.csv")
    assert list(table.columns) == COLUMNS
    assert table.command[0] == "defectkit bench graphs --seed 5"
    assert "1.5" in result.output
    with pytest.raises(DefectkitError, match="choose from graphs"):
        bench.run("nothing", output=tmp_path)
