"""The folder of a run: what lies in it, and who may write there.

config.yaml         the `RunConfig`
run.json            what it was made of: seed and fingerprints
model.safetensors   weights, and `model.yaml`, what they mean (networks only)
metrics.csv         losses and errors, a row an epoch (networks only)
predictions.csv     uid, part, eform and spin, labels and predictions, of all rows not trained on
summary.yaml        seed, fingerprints, versions, sizes, seconds; written last: the run is finished

Every file is there whole or not at all, and a folder belongs to one process at a time.
"""

import csv
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filelock import Timeout
from pydantic import BaseModel, Field, ValidationError

from defectkit import DefectkitError
from defectkit.structures.names import one_line
from defectkit.structures.writing import locked, make_folder, not_written, own_text, write_text
from defectkit.training.config import RunConfig, load_config, parse, save_config

PREDICTIONS = "predictions.csv"
PARTS = ("valid", "test")
LABELS, PREDICTED = ["eform", "spin"], ["eform_pred", "spin_pred"]
MARK, SETTINGS, LOCK = "run.json", "config.yaml", ".lock"
SUMMARY, LAST, STUDY = "summary.yaml", "last.ckpt", "study.db"
WORTH = (SUMMARY, LAST, STUDY)  # any of them blocks another run or search
ANEW = "remove the folder and train again, or fetch it anew"


@dataclass(frozen=True)
class Run:
    """A finished run, as its folder tells it."""

    folder: Path

    @cached_property
    def config(self) -> RunConfig:
        """What was asked for."""
        return load_config(self.folder / SETTINGS)

    @cached_property
    def summary(self) -> dict:
        """Seed, fingerprints, versions, sizes, seconds; DefectkitError for one that is missing."""
        path = self.folder / SUMMARY
        values = parse(_text(path), str(path))
        if not isinstance(values, dict):
            raise DefectkitError(f"{path} is empty or cut; {ANEW}.")
        try:
            _SummaryFields.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            name = one_line(".".join(map(str, first["loc"])))
            raise DefectkitError(f"{path}: {name}: {one_line(first['msg'])}; {ANEW}.") from error
        return _Summary(path, values)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """Columns part, eform, spin, eform_pred, spin_pred (eV, μB), indexed by uid."""
        return _read_predictions(self.folder / PREDICTIONS)

    def part(self, name: str) -> pd.DataFrame:
        """Predictions of one part, "valid" or "test"."""
        if name not in set(self.predictions.part):
            raise DefectkitError(f"{self.folder} has no predictions for '{name}' rows.")
        return self.predictions[self.predictions.part == name]

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return (self.folder / SUMMARY).is_file()

    def check_finished(self) -> None:
        """DefectkitError unless it did."""
        if not self.finished:
            raise DefectkitError(f"{self.folder} is no finished run; train it to its end.")


class _Rows(BaseModel, strict=True):
    """How many rows each part has."""

    train: int
    valid: int
    test: int


class _SummaryFields(BaseModel, strict=True):
    """Kinds of the values of a summary that are read again; it may hold more, or lack some."""

    seed: int = 0
    data_fingerprint: str = ""
    split_fingerprint: str = ""
    data: str = ""
    label_source: str = ""
    rows: _Rows | None = None
    left_out: dict[str, str] = Field(default_factory=dict)
    parameters: int = 0
    train_s_per_epoch: float = Field(default=0.0, allow_inf_nan=False)
    epochs: int = 0


class _Summary(dict):
    """Values of a file, which names itself where one is asked for that it lacks."""

    def __init__(self, path: Path, values: dict):
        super().__init__(values)
        self.path = path

    def __missing__(self, key: str) -> None:
        raise DefectkitError(f"{self.path} has no '{key}', it may be cut; {ANEW}.")


def _read_predictions(path: Path) -> pd.DataFrame:
    """The table of a run; DefectkitError that names the file and what is wrong with it."""
    text = _text(path)
    try:
        # Not with pandas, which takes the first cells of a row with too many for an index.
        heading, *rows = filter(None, csv.reader(StringIO(text), strict=True))
        if len(set(heading)) < len(heading):
            raise ValueError("a column stands twice")
        table = pd.DataFrame(rows, columns=heading, dtype=object)
    except (ValueError, csv.Error) as error:
        reason = one_line(error) if text.strip() else "it is empty"
        raise DefectkitError(f"{path} is no table ({reason}); {ANEW}.") from error
    missing = [name for name in ("uid", "part", *LABELS, *PREDICTED) if name not in table]
    if missing or not text.endswith("\n"):
        fault = f"has no column {', '.join(missing)}" if missing else "is cut in its last line"
        raise DefectkitError(f"{path} {fault}; {ANEW}.")
    for name in LABELS + PREDICTED:
        numbers = pd.to_numeric(table[name], errors="coerce")
        unknown = table[name].isna() | table[name].str.strip().str.lower().isin(["", "nan"])
        # A label may be unknown; a prediction may where a target had no label to learn from.
        may_lack = name in LABELS or (name == "spin_pred" and unknown.all())
        wrong = ~np.isfinite(numbers) & ~(unknown & may_lack)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise DefectkitError(
                f"{path}, line {row + 2}: {name} is '{one_line(table[name][row])}' and no "
                f"number; {ANEW}."
            )
        table[name] = numbers.astype(float)
    strange = sorted(set(table.part) - set(PARTS))
    twice = table.uid[table.uid.duplicated()]
    if strange or len(twice):
        fault = (
            f"part is '{one_line(strange[0])}'"
            if strange
            else f"{one_line(twice.iloc[0])} stands twice"
        )
        raise DefectkitError(f"{path}: {one_line(fault)}; {ANEW}.")
    return table.set_index("uid")


def _text(path: Path) -> str:
    return own_text(path, f"is missing; {path.parent} is no finished run", ANEW)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep a folder, made where it is missing, for this process until the block is done.

    A folder that this made and in which nothing was left is removed again. Raises DefectkitError
    where another process has it, or it cannot be written to.
    """
    made = not folder.exists()
    make_folder(folder)
    try:
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(folder / LOCK))
            except Timeout as error:
                raise DefectkitError(
                    f"{folder} is in use: another process is at work there; wait until it is "
                    "done, or name another folder."
                ) from error
            except OSError as error:
                raise not_written(folder / LOCK, error) from error
            for part in folder.glob(".*.part*"):  # of a process that was killed while it wrote
                part.unlink()
            yield
    finally:
        if made:
            with suppress(OSError):  # not empty: then it stays
                folder.rmdir()


def same(folder: Path, config: Any, identity: dict) -> bool:
    """Whether the mark of a folder says that it was made of these."""
    try:
        found = json.loads((folder / MARK).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError, RecursionError) as error:
        raise DefectkitError(
            f"{folder / MARK} cannot be read ({one_line(error)}); remove {folder} or name "
            "another folder."
        ) from error
    if found != identity or config is None:
        return found == identity
    path = folder / SETTINGS
    return path.is_file() and load_config(path, type(config)) == config


def claim(folder: Path, config: Any, identity: dict, files: Sequence[str]) -> None:
    """Mark a folder that is `held`.

    Args:
        folder: the folder.
        config: of the run, written beside the mark; None where `identity` says it all.
        identity: what it was made of, as plain values.
        files: names of all files of a run or search; without a mark they are somebody else's.

    Raises DefectkitError where the folder holds another run, or files of somebody else.
    """
    if same(folder, config, identity):
        return
    if any((folder / name).exists() for name in WORTH):
        raise DefectkitError(
            f"{folder} holds another run or search (other settings, data or seed); name another "
            "folder or remove this one."
        )
    strangers = [name for name in files if (folder / name).exists()]
    if strangers and not (folder / MARK).is_file():
        raise DefectkitError(
            f"{folder} is no run folder, and its {strangers[0]} would be overwritten; name another "
            "folder."
        )
    clear(folder, files)
    write_text(folder / MARK, json.dumps(identity, indent=1))
    if config is not None:
        save_config(config, folder / SETTINGS)


def clear(folder: Path, files: Sequence[str]) -> None:
    """Remove what a run left, the mark last."""
    for path in (*(folder / name for name in files), folder / MARK):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
