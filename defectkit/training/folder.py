"""A folder that belongs to one run, or one search, and to one process at a time.

run.json (what it was made of) and config.yaml mark it. What is left of an earlier attempt that
never came to anything is taken over; what is worth going on with blocks another configuration.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import Timeout

from defectkit import DefectkitError
from defectkit.structures.names import one_line
from defectkit.structures.writing import locked, make_folder, not_written, write_text
from defectkit.training.config import load_config, save_config

MARK, SETTINGS, LOCK = "run.json", "config.yaml", ".lock"
SUMMARY, LAST, STUDY = "summary.yaml", "last.ckpt", "study.db"
WORTH = (SUMMARY, LAST, STUDY)  # any of them blocks another run or search


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
