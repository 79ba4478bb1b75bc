import errno
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from crystals import defective, host
from torch_geometric.data import Batch
from torch_geometric.loader import DataLoader

from defectkit import DefectkitError
from defectkit.graphs import GraphConfig, GraphDataset, build_graph, load_graphs
from defectkit.graphs import dataset as graph_dataset
from defectkit.structures.record import DefectRecord

HOSTS = {"MoS2": host()}


def records() -> list[DefectRecord]:
    def row(uid, atoms, eform):
        return DefectRecord(uid, atoms, host="MoS2", label_source="test", eform=eform)

    return [
        row("a", defective(3), 1.0),
        row("pristine", host().repeat((2, 2, 1)), float("nan")),
        row("c", defective(4), -2.5),
    ]


def assert_same(graph, expected):
    assert set(graph.keys()) == set(expected.keys())
    assert graph.uid == expected.uid
    for key in set(expected.keys()) - {"uid"}:
        assert graph[key].dtype == expected[key].dtype, key
        torch.testing.assert_close(graph[key], expected[key], rtol=0, atol=0, equal_nan=True)


@pytest.fixture
def no_building(monkeypatch):
    def build(*args):
        raise AssertionError("a graph was built")

    return lambda: monkeypatch.setattr(graph_dataset, "build_graph", build)


@pytest.mark.parametrize(
    "config",
    [
        GraphConfig(),
        GraphConfig(angle_cutoff=None, all_pairs=False),
        GraphConfig(cutoff=2.0, angle_cutoff=1.0),  # edges between some, angles nowhere
    ],
)
def test_graphs_come_back_from_the_cache_as_they_were(tmp_path, config, no_building):
    built = load_graphs(records(), HOSTS, config, tmp_path)
    (file,) = tmp_path.iterdir()
    assert file.suffix == ".safetensors"
    no_building()
    loaded = load_graphs(records(), HOSTS, config, tmp_path)
    assert loaded.uids == ["a", "pristine", "c"]
    for number, record in enumerate(records()):
        expected = build_graph(record, config, host())
        assert_same(built[number], expected)
        assert_same(loaded[number], expected)
    assert_same(loaded[-1], expected)
    with pytest.raises(IndexError):
        loaded[3]


def test_items_are_copies(tmp_path):
    dataset = load_graphs(records(), HOSTS, cache=tmp_path)
    graph = dataset[0]
    for key in set(graph.keys()) - {"uid"}:
        graph[key].zero_()
    assert_same(dataset[0], build_graph(records()[0], host=host()))


def test_a_loader_batches_the_cached_graphs():
    dataset = load_graphs(records(), HOSTS)
    (batch,) = DataLoader(dataset, batch_size=3)
    assert batch.num_graphs == 3
    assert batch.uid == ["a", "pristine", "c"]
    edges = batch.edge_index[1, batch.angle_index]
    assert torch.equal(edges[0], edges[1])


def changed(**values) -> list[DefectRecord]:
    first, *others = records()
    return [replace(first, **values), *others]


def moved(atoms):
    atoms.positions[2, 0] += 1e-6
    return atoms


@pytest.mark.parametrize(
    ("rows", "hosts", "config"),
    [
        (changed(atoms=moved(defective(3))), HOSTS, GraphConfig()),
        (changed(eform=1.1), HOSTS, GraphConfig()),
        (changed(uid="b"), HOSTS, GraphConfig()),
        (changed(unrelaxed=defective(3).positions), HOSTS, GraphConfig()),
        (records()[::-1], HOSTS, GraphConfig()),
        (records(), {"MoS2": moved(host())}, GraphConfig()),
        (records(), HOSTS, GraphConfig(cutoff=5.1)),
    ],
)
def test_other_contents_have_another_file(tmp_path, rows, hosts, config):
    load_graphs(records(), HOSTS, cache=tmp_path)
    load_graphs(rows, hosts, config, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "flip", "header", "empty"])
def test_a_damaged_file_is_built_anew(tmp_path, damage, capsys):
    load_graphs(records(), HOSTS, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    broken = {
        "cut": content[: len(content) // 2],
        "flip": content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
        "header": b"\xff" * 100 + content[100:],
        "empty": b"",
    }[damage]
    file.write_bytes(broken)
    with pytest.raises(DefectkitError, match=r"graphs-.* is (damaged|not a readable)"):
        GraphDataset.load(file)
    dataset = load_graphs(records(), HOSTS, cache=tmp_path)
    assert "built anew" in capsys.readouterr().out
    assert_same(dataset[0], build_graph(records()[0], host=host()))
    assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_a_cache_that_cannot_be_used_is_gone_without_and_that_is_said_once(
    tmp_path, monkeypatch, capsys
):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "file").touch()
    for cache, fault, reason in (
        (tmp_path / "full", full, "the disk is full"),
        (tmp_path / "file" / "folder", os.replace, "is a file and no folder"),
    ):
        monkeypatch.setattr(os, "replace", fault)
        for _ in range(2):
            dataset = load_graphs(records(), HOSTS, cache=cache)
            assert_same(dataset[0], build_graph(records()[0], host=host()))
        said = capsys.readouterr().err
        assert said.count("Nothing is kept for the next time: ") == said.count("\n") == 1
        assert reason in said
        monkeypatch.undo()
    assert list((tmp_path / "full").iterdir()) == []


def test_two_processes_may_build_one_cache(tmp_path):
    """Both build before either has written; what stays is whole."""
    script = """
import sys
import time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from graphs.test_graph_dataset import HOSTS, records
from defectkit.graphs import load_graphs
from defectkit.graphs import dataset
build = dataset._build
def wait_for_the_other(*arguments):
    Path(sys.argv[1], sys.argv[3]).touch()
    while len(list(Path(sys.argv[1]).iterdir())) < 2:
        time.sleep(0.01)
    return build(*arguments)
dataset._build = wait_for_the_other
print(len(load_graphs(records(), HOSTS, cache=Path(sys.argv[1], "..", "cache"))))
"""
    (tmp_path / "begun").mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, tmp_path / "begun", Path(__file__).parents[1], name],
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    assert [p.communicate(timeout=100)[0] for p in processes] == ["3\n", "3\n"]
    (file,) = (tmp_path / "cache").iterdir()
    assert GraphDataset.load(file).uids == ["a", "pristine", "c"]


@pytest.mark.skipif(os.name == "nt", reason="permissions of Unix")
def test_others_may_read_the_cache(tmp_path):
    before = os.umask(0o022)
    try:
        load_graphs(records(), HOSTS, cache=tmp_path)
    finally:
        os.umask(before)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o644


def test_what_cannot_be_built_is_named():
    with pytest.raises(DefectkitError, match="a: there is no pristine MoS2"):
        load_graphs(records(), {})
    atoms = defective()
    atoms.positions[3] = atoms.positions[4]
    with pytest.raises(DefectkitError, match=r"bad.*0.00 Å apart"):
        load_graphs(changed(uid="bad", atoms=atoms), HOSTS)


def test_the_file_holds_numbers_and_text_only(tmp_path):
    from safetensors import safe_open

    dataset = load_graphs(records(), HOSTS, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    with safe_open(file, "np") as content:
        assert content.metadata().keys() == {"graphs"}
        assert set(content.keys()) == set(dataset.tensors)
    # Integers are stored in one or two bytes.
    assert file.stat().st_size < 0.3 * sum(
        graph[key].numel() * graph[key].itemsize
        for graph in dataset
        for key in set(graph.keys()) - {"uid"}
    )


def test_five_thousand_rows_load_in_three_seconds(tmp_path):
    graph = build_graph(defective(4), host=host())
    path = tmp_path / "many.safetensors"
    GraphDataset.from_graphs(graph for _ in range(5000)).save(path)
    start = time.perf_counter()
    dataset = GraphDataset.load(path)
    dataset[4999]
    assert time.perf_counter() - start < 3.0
    assert len(dataset) == 5000


@pytest.mark.parametrize(
    "config",
    [
        GraphConfig(),
        GraphConfig(angle_cutoff=None, all_pairs=False),
        GraphConfig(cutoff=2.0, angle_cutoff=1.0),
    ],
)
@pytest.mark.parametrize("numbers", [[0, 1, 2], [2, 0], [1], [2, 2]])
def test_a_batch_is_what_pyg_makes_of_the_graphs(config, numbers):
    dataset = load_graphs(records(), HOSTS, config)
    batch = dataset.batch(numbers)
    expected = Batch.from_data_list([dataset[k] for k in numbers])
    assert batch.uid == expected.uid
    for key in set(expected.keys()) - {"uid", "ptr"}:
        assert batch[key].dtype == expected[key].dtype, key
        torch.testing.assert_close(batch[key], expected[key], rtol=0, atol=0, equal_nan=True)
    batch.edge_index += 1  # a copy, not a view of the data set
    assert torch.equal(dataset.batch(numbers).edge_index, expected.edge_index)


def test_structures_that_are_no_good_are_left_out_where_asked(tmp_path, capsys):
    broken = defective(3)
    broken.positions[0] = broken.positions[1] + 0.3
    rows = [*records(), DefectRecord("broken", broken, host="MoS2", label_source="test")]
    with pytest.raises(DefectkitError, match="broken"):
        load_graphs(rows, HOSTS, cache=tmp_path)
    kept = load_graphs(rows, HOSTS, cache=tmp_path, skip=True)
    assert kept.uids == ["a", "pristine", "c"]
    assert "1 of 4 structures are left out" in capsys.readouterr().out
    assert load_graphs(rows, HOSTS, cache=tmp_path, skip=True).uids == kept.uids
    with pytest.raises(DefectkitError, match="broken"):  # the file of the others does not hide it
        load_graphs(rows, HOSTS, cache=tmp_path)
    assert kept.select(["c", "broken", "a"]) == [2, 0]
