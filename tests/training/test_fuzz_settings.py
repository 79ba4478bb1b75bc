"""Broken settings, splits, models and results are read rightly or refused in one sentence.

More, and other, files than the suite tries:
`PYTHONPATH=tests python tests/training/test_fuzz_settings.py SEED FILES`.
"""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import fuzz
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from run_cases import CGCNN, HYBRID

from defectkit import DefectkitError
from defectkit.bench.judge import judge, metrics
from defectkit.bench.studies import jobs_of
from defectkit.data import load
from defectkit.data.dataset import Dataset
from defectkit.data.splits import Split, make_split
from defectkit.evaluation.metrics import scores
from defectkit.graphs.dataset import GraphDataset, load_graphs
from defectkit.graphs.elements import feature_table
from defectkit.models import build_model
from defectkit.predict.domain import Learned, composition_vectors, predict_with_vectors
from defectkit.predict.predictor import DISTANCES, UNREAD, VALID, Predictor
from defectkit.predict.surroundings import surroundings
from defectkit.training.config import (
    RunConfig,
    StudyConfig,
    TuneConfig,
    load_config,
    save_config,
    text_of,
    to_dict,
)
from defectkit.training.inference import CARD, WEIGHTS, ModelCard, load_model, predict, save_model
from defectkit.training.prepared import check_config
from defectkit.training.run import MARK, PREDICTIONS, SUMMARY, Run, same
from defectkit.training.tune import whole_numbers

VALUES = [
    None,
    True,
    False,
    0,
    -1,
    2,
    1.5,
    -0.0,
    1e-320,
    1e308,
    float("inf"),
    float("nan"),
    10**12,
    2**31,
    2**63,
    10**40,
    "",
    "x",
    "1e3",
    "nan",
    "../..",
    "\0",
    "\u202e",
    "é" * 5000,
    [],
    [1],
    [[]],
    {},
    {"a": 1},
    [None] * 100,
]
YAML_LINES = [
    b"<<: {a: 1}",
    b"? [a]\n: b",
    b"---",
    b"...",
    b"- 1",
    b"\tx: 1",
    b"a: !!python/name:os.system",
    b"a: !!binary x",
    b"a: 2001-99-99",
    b"a: 0o9",
    b"a: 1_0:99",
    b"a: &a [*a]",
    b"*x",
    b"%YAML 9",
    b"a: " + b"[" * 5000,
    b"? " * 2000,
    b"a: !!set {a}",
    b"~: ~",
    b"1: 2",
    b"true: 1",
    b"a: &x x",
    b"a: !!int ''",
    b"a: !!float x",
    b"\xe2\x80\xa8",
    b'a: "\\ud800"',
    b"a: 1e999",
]
CELLS = [b"", b"nan", b"inf", b"-1e400", b"x", b"'", b'"', b"\0", b"1e308", b"=1", b"1,5", b"train"]
LABEL = "made up"


def change_tree(values: Any, draw: random.Random) -> None:
    """One fault in nested dictionaries and lists, in place."""
    inner = [values]
    for place in inner:
        children = place.values() if isinstance(place, dict) else place
        groups = [child for child in children if isinstance(child, dict | list) and child]
        inner += [group for group in groups if not any(group is known for known in inner)]
    place = draw.choice(inner)
    key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
    other = draw.choice(inner)
    way = draw.randrange(5)
    if way == 0:
        del place[key]
    elif way == 1 and isinstance(place, dict):
        place[draw.choice(["x", "", "é", f"{key}s", str(key)[:-1]])] = place.pop(key)
    elif way == 2 and isinstance(other, dict) and not isinstance(place[key], dict | list):
        other[draw.choice(["x", *map(str, other)])] = place[key]
    elif way == 3 and isinstance(place[key], int | float):
        place[key] = place[key] * draw.choice([-1, 1e-9, 10, 1e9])
    else:
        place[key] = draw.choice(VALUES)


def tree_fault(parse: Callable, write: Callable[[Any], str]) -> fuzz.Fault:
    """A fault in the values of a text; what cannot be read any more stays as it is."""

    def fault(text: bytes, draw: random.Random) -> bytes:
        try:
            values = parse(text.decode())
            change_tree(values, draw)
            return write(values).encode()
        except (ValueError, yaml.YAMLError, LookupError, RecursionError, TypeError):
            return text

    return fault


def odd_line(text: bytes, draw: random.Random) -> bytes:
    lines = text.split(b"\n")
    place = draw.randrange(len(lines))
    blanks = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
    lines.insert(place, blanks + draw.choice(YAML_LINES))
    return b"\n".join(lines)


def odd_cell(text: bytes, draw: random.Random) -> bytes:
    """A cell of a table becomes another; a column may be lost, or stand twice."""
    rows = [line.split(b",") for line in text.split(b"\n")]
    row = draw.randrange(len(rows))
    column = draw.randrange(len(rows[row]))
    way = draw.randrange(4)
    for cells in [rows[row]] if way < 2 else rows:
        if column < len(cells):
            cells[column : column + 1] = [
                [draw.choice(CELLS)],
                [draw.choice(CELLS)],
                [],
                [cells[column]] * 2,
            ][way]
    return b"\n".join(map(b",".join, rows))


def odd_header(text: bytes, draw: random.Random) -> bytes:
    """A fault in what a file of tensors says of itself, or in its numbers."""
    length = int.from_bytes(text[:8], "little")
    if draw.random() < 0.2:
        length = draw.choice([0, 1, length - 1, length + 1, 10**12, 2**63, 2**64 - 1])
        return length.to_bytes(8, "little") + text[8:]
    head, numbers = text[8 : 8 + length], text[8 + length :]
    if draw.random() < 0.3 and len(numbers) > 8:
        place = 4 * draw.randrange(len(numbers) // 4)
        value = np.float32(draw.choice([np.nan, np.inf, 1e30, -1e38, 1e-45])).tobytes()
        numbers = numbers[:place] + value + numbers[place + 4 :]
    else:
        head = tree_fault(json.loads, json.dumps)(head, draw)
        head = head.replace(b'"F32"', draw.choice([b'"F32"', b'"F16"', b'"F64"', b'"I32"', b'"Q"']))
        head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + numbers


YAML_FAULTS = [
    *fuzz.FAULTS,
    *[tree_fault(yaml.safe_load, partial(yaml.safe_dump, allow_unicode=True))] * 8,
    *[odd_line] * 3,
]
JSON_FAULTS = [*fuzz.FAULTS, *[tree_fault(json.loads, json.dumps)] * 8]
TENSOR_FAULTS = [*fuzz.FAULTS, *[odd_header] * 8]
TABLE_FAULTS = [*fuzz.FAULTS, *[odd_cell] * 8]


@cache
def few() -> Dataset:
    """Thirty demo rows of small cells."""
    whole = load("demo")
    frame = whole.frame[whole.frame.converged & (whole.frame.natoms < 28)]
    return whole.subset(frame.index[::40][:30])


@cache
def graphs() -> GraphDataset:
    data = few()
    return load_graphs(data.records[:1], data.hosts, CGCNN.graph)


def bytes_of(write: Callable[[Path], Any], path: Path) -> bytes:
    write(path)
    return path.read_bytes()


def agreed(work: Callable[[], Any]) -> bool:
    """Whether what the kit does with a value that was read succeeds, else is a sentence."""
    try:
        work()
    except DefectkitError as error:
        fuzz.check_sentence(str(error))
        return False
    return True


RUN = replace(HYBRID, augment=("strain",), features=("elemental", "magpie"))
TUNE = """
run:
  model: {name: cgcnn, settings: {hidden: 8}}
  epochs: 2
search:
  optimiser.lr: {low: 0.001, high: 0.1, log: true}
  model.settings.layers: {choices: [1, 2]}
  batch_size: {low: 4, high: 9}
trials: 3
"""
STUDY = """
run:
  model: {name: hybrid, settings: {hidden: 64}}
  data: {name: 2dmd}
splits: true
seeds: [0, 3]
variants:
  from scratch:
    "10": {data.train_rows: 10}
    "40": {data.train_rows: 40, optimiser.name: muon}
"""


def read_config(kind: type, use: Callable[[Any], Any], folder: Path, text: bytes) -> str | None:
    path = folder / "config.yaml"
    config = load_config(path, kind)
    assert isinstance(config, kind)
    save_config(config, folder / "again.yaml")
    assert load_config(folder / "again.yaml", kind) == config
    return None if agreed(lambda: use(config)) else "refused when it is to start"


def config_case(kind: type, text: str, use: Callable) -> fuzz.Case:
    read = partial(read_config, kind, use)
    return fuzz.Case("config.yaml", lambda folder: text.encode(), read, YAML_FAULTS, 200)


def split_case(**how) -> fuzz.Case:
    def read(folder: Path, text: bytes) -> None:
        split = Split.load(folder / "split.json", few())
        parts = [split.train, split.valid, split.test, split.calibration]
        assert sorted(sum(parts, ())) == sorted(few().frame.index)

    def whole(folder: Path) -> bytes:
        return bytes_of(make_split(few(), **how).save, folder / "split.json")

    return fuzz.Case("split.json", whole, read, JSON_FAULTS, 200)


def write_member(folder: Path, seed: int) -> None:
    """A network that has learned nothing."""
    torch.manual_seed(seed)
    table = torch.tensor(feature_table(CGCNN.features).values, dtype=torch.float32)
    table = (table - table.mean(0)) / table.std(0).clamp(min=1)
    model = build_model("cgcnn", table.nan_to_num(), CGCNN.graph, **CGCNN.model.settings)
    ranges = (-3.0, 12.5), (0.0, 4.0)
    data = (few().name, LABEL, few().fingerprint, "0f" * 32)
    folder.mkdir(exist_ok=True)
    save_model(folder, model, ModelCard(CGCNN.model, CGCNN.graph, CGCNN.features, *data, *ranges))


def write_model(name: str, folder: Path) -> bytes:
    write_member(folder, 0)
    return (folder / name).read_bytes()


def read_model(folder: Path, text: bytes) -> None:
    model, card = load_model(folder)
    assert card.eform_range[0] <= card.eform_range[1]
    if card.graph == CGCNN.graph:
        assert list(predict(model, graphs()).index) == graphs().uids


def write_predictor(folder: Path) -> bytes:
    members = tuple(folder / name for name in ("a", "b"))
    for seed, member in enumerate(members):
        write_member(member, seed)
    draw = np.random.default_rng(0)
    columns = [*VALID, *DISTANCES]
    valid = pd.DataFrame(draw.random((20, len(columns)), dtype=np.float32), columns=columns)
    width = predict_with_vectors(load_model(members[0])[0], graphs())[1].shape[1]
    training = {
        "latent": draw.random((12, width)).astype(np.float16),
        "composition": composition_vectors(few().frame.iloc[:12]).to_numpy(np.float16),
        "surroundings": surroundings(graphs()).to_numpy(np.float16)[:1].repeat(12, axis=0),
    }
    learned = Learned.of(few(), [record.uid for record in few().records[:12]], CGCNN.graph)
    predictor = Predictor(members, training, valid, learned)
    return bytes_of(predictor.save, folder / "p.safetensors")


def read_predictor(folder: Path, text: bytes) -> None:
    predictor = Predictor.load(folder / "p.safetensors")
    found = predictor(few().records[:1], few().hosts)
    assert found.verdict.tolist() != [UNREAD]
    assert found.eform_lo.item() <= found.eform.item() <= found.eform_hi.item()
    assert found[list(DISTANCES)].notna().all(axis=None)


def write_run(name: str, folder: Path) -> bytes:
    draw = np.random.default_rng(0)
    values = draw.random((8, 4)).round(5)
    table = pd.DataFrame(values, columns=["eform", "spin", "eform_pred", "spin_pred"])
    table.insert(0, "part", ["valid", "test"] * 4)
    table.rename_axis("uid").rename("row {}".format).to_csv(folder / PREDICTIONS)
    identity = {"seed": 0, "data_fingerprint": "1e5" + "0" * 61, "split_fingerprint": "a" * 64}
    summary = identity | {
        "data": "demo",
        "label_source": LABEL,
        "rows": {"train": 9, "valid": 4, "test": 4},
        "left_out": {"row 9": "It has no atoms."},
        "epochs": 2,
        "train_s_per_epoch": 0.5,
        "parameters": 100,
        "versions": {"torch": "1"},
        "threads": 1,
    }
    (folder / SUMMARY).write_text(text_of(summary))
    (folder / MARK).write_text(json.dumps(identity, indent=1))
    save_config(CGCNN, folder / "config.yaml")
    return (folder / name).read_bytes()


def read_results(folder: Path, text: bytes) -> None:
    run = Run(folder)
    assert run.predictions[["eform_pred"]].notna().all(axis=None)
    assert set(run.predictions.part) <= {"valid", "test"}
    for part in ("valid", "test"):
        found = scores(run.part(part))
        assert len(run.part(part))
        assert set(found) > {"eform_mae", "spin_mae"}


def read_summary(folder: Path, text: bytes) -> None:
    run = Run(folder)
    table = metrics(judge([run]))
    assert table.seed.tolist() == [run.summary["seed"]]
    known = {"train", "valid", "test"}
    assert all(type(run.summary["rows"][name]) is int for name in known)
    assert all(isinstance(why, str) for why in run.summary["left_out"].values())
    round(run.summary["train_s_per_epoch"], 2)
    assert {type(run.summary[name]) for name in ("parameters", "seed")} == {int}
    for name in ("data", "label_source", "data_fingerprint", "split_fingerprint"):
        assert type(run.summary[name]) is str


def read_mark(folder: Path, text: bytes) -> str | None:
    identity = {"seed": 0, "data_fingerprint": "1e5" + "0" * 61, "split_fingerprint": "a" * 64}
    if not same(folder, CGCNN, identity):
        return "of another run"
    assert json.loads(text) == identity
    return None


CASES = {
    "run": config_case(RunConfig, text_of(to_dict(RUN)), check_config),
    "tune": config_case(TuneConfig, TUNE, lambda config: whole_numbers(config, 0)),
    "study": config_case(StudyConfig, STUDY, lambda config: jobs_of(config, Path("study"))),
    "host split": split_case(kind="host", fold=0),
    "block split": split_case(kind="block", held_out=("MoS2 (2H)", "3d")),
    "card": fuzz.Case(CARD, partial(write_model, CARD), read_model, YAML_FAULTS, 200),
    "weights": fuzz.Case(WEIGHTS, partial(write_model, WEIGHTS), read_model, TENSOR_FAULTS, 200),
    "predictor": fuzz.Case("p.safetensors", write_predictor, read_predictor, TENSOR_FAULTS, 100),
    "predictions": fuzz.Case(
        PREDICTIONS, partial(write_run, PREDICTIONS), read_results, TABLE_FAULTS, 100
    ),
    "summary": fuzz.Case(SUMMARY, partial(write_run, SUMMARY), read_summary, YAML_FAULTS, 100),
    "mark": fuzz.Case(MARK, partial(write_run, MARK), read_mark, JSON_FAULTS, 200),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_broken_file_is_read_rightly_or_refused_in_a_sentence(kind):
    fuzz.try_many(kind, CASES[kind])


def announced(n: int) -> bytes:
    """A file of tensors whose header tells of n numbers, and that holds none."""
    head = json.dumps({"latent": {"dtype": "F32", "shape": [n], "data_offsets": [0, 4 * n]}})
    return len(head).to_bytes(8, "little") + head.encode()


ALIASES = "\n".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 30))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("weights", announced(10**12)),
        ("weights", (10**12).to_bytes(8, "little")),
        ("predictor", announced(10**12)),
        ("predictor", b"\xff" * 8 + b"{}"),
        ("run", b"a: " + b"[" * 50_000),
        ("run", b"? " * 50_000),
        ("run", b"a: 1\n" * 30_000),
        ("card", f"a0: &a0 [x]\n{ALIASES}".encode()),
        ("summary", f"a0: &a0 [x]\n{ALIASES}\nseed: x".encode()),
        ("host split", b"[" * 100_000),
        ("mark", b"[" * 100_000),
        ("mark", b"9" * 100_000),
        ("predictions", b"uid,part,eform,spin,eform_pred,spin_pred\n" + b"," * 1_000_000),
    ],
)
def test_what_would_fill_the_memory_or_take_for_ever_is_refused(kind, text):
    before = fuzz.forget_peak()
    assert CASES[kind].outcome_of(text) == "refused"
    assert fuzz.peak_mb() - before < fuzz.MEMORY


if __name__ == "__main__":
    fuzz.main(CASES)
