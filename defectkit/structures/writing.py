"""Writes files whole or not at all: under another name in the same folder, then renamed.

A process that is killed in between leaves the older file as it was, and a part file that the next
writer of that file removes. A writer that needs several files to belong together writes last the
one that says that all are there. Files of a cache are a help that may fail: `keep`. Worker
processes, which write for their parent, end with it (`process_pool`); the same work can go to a
Dask cluster (`executor`).
"""

import errno
import glob
import os
import sys
import tempfile
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING
from uuid import uuid4

from filelock import FileLock

from defectkit import DefectkitError
from defectkit.structures.names import one_line

if TYPE_CHECKING:  # the command line imports this module, and is quick without it
    import numpy as np

REASONS = {
    errno.ENOSPC: "the disk is full; make room or name a path on another disk",
    errno.EDQUOT: "your share of the disk is used up; make room or name a path on another disk",
    errno.EACCES: "its folder may not be written to; change its permissions or name another path",
    errno.EPERM: "its folder may not be written to; change its permissions or name another path",
    errno.EROFS: "its disk is read-only; name a path on another disk",
    errno.ENOENT: "its folder does not exist; make it or name another path",
    errno.ENOTDIR: "a part of this path is a file and no folder; name another path",
    errno.EEXIST: "a file of this name is in the way; name another path",
    errno.EISDIR: "a folder of this name is in the way; name another path",
    errno.ENAMETOOLONG: "its name is too long; name a shorter one",
    errno.EFBIG: "it is larger than files may be here; name a path on another disk",
    errno.EIO: "its disk has a fault; name a path on another disk",
}
AHEAD = 64  # tasks handed out before their results are collected
PATIENCE = 30  # s until a scheduler answers
STALE = 3600.0  # s since a part file was last written, after which its process has ended
_unkept: set[Path] = set()  # folders for which the warning of `keep` was printed


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a part file to write to; it is renamed to `path` when the block is done.

        with atomic("table.csv") as part:
            table.to_csv(part)

    The part file lies in the same folder and ends like `path`, for writers that go by the ending.
    It is made at once: what takes long is computed inside the block, and an output that cannot
    be written is known before. When the block raises, the part is removed and `path` stays what
    it was. The result has the permissions that the umask asks for, whatever the writer chose. A
    link is followed.

    Raises DefectkitError that names `path` where it cannot be written: a full disk, no
    permission, a missing folder, a folder of this name.
    """
    target = Path(os.path.realpath(path))
    _sweep(target)
    part = target.with_name(f".{target.stem}-{uuid4().hex[:8]}.part{target.suffix}")
    try:
        if target.exists() and not target.is_file():
            raise OSError(errno.EISDIR if target.is_dir() else errno.EEXIST, "", str(target))
        with open(part, "xb") as file:  # with the permissions that the umask leaves
            mode = os.fstat(file.fileno()).st_mode & 0o777
        yield part
        os.chmod(part, mode)
        os.replace(part, target)
    except OSError as error:
        nameless = error.filename is None and error.errno in REASONS  # as of `write`
        if not nameless and error.filename not in (str(part), str(target), part, target):
            raise  # another file's fault, or none of a file
        raise not_written(path, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text as UTF-8 with Unix line ends, whole or not at all; see `atomic`."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8", newline="\n")


def own_text(path: str | Path, missing: str, garbled: str) -> str:
    """The text of a file as `write_text` writes it.

    Args:
        path: of the file.
        missing: what to say of it where there is none.
        garbled: what to do where it is no UTF-8.

    Raises DefectkitError that names the file where it cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DefectkitError(f"{path} {missing}.") from error
    except OSError as error:
        raise DefectkitError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise DefectkitError(f"{path} is no text in UTF-8; {garbled}.") from error


def keep(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file of a cache; where that fails, say so once and go on without it.

    The folder is made where it is missing, and the one that it lies in is spoken of once. Of
    processes that write the same file at once, the last one's stays, whole.
    """
    try:
        make_folder(path.parent)
        with atomic(path) as part:
            write(part)
    except DefectkitError as error:
        place = path.parent.parent  # one folder for what is kept, with a part for every kind
        if place not in _unkept:
            _unkept.add(place)
            print(f"Nothing is kept for the next time: {error}", file=sys.stderr)


def checksum(arrays: Mapping[str, "np.ndarray"]) -> int:
    """CRC-32 over the bytes of all arrays in the order of their names, for the header of a file."""
    value = 0
    for key in sorted(arrays):
        value = zlib.crc32(arrays[key].ravel().view("u1").data, value)
    return value


@contextmanager
def locked(path: str | Path, timeout: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path` until the block is done, when it is removed.

    Raises filelock.Timeout where another process has it for `timeout` seconds (-1: waits for it),
    and OSError where there can be no lock.
    """
    with FileLock(path, timeout=timeout):
        try:
            yield
        finally:
            with suppress(OSError):  # before the release: who comes next makes a lock of its own
                Path(path).unlink()


def make_folder(path: str | Path) -> Path:
    """The folder `path`, made with its parents where it is missing.

    DefectkitError where it cannot be made, or files cannot be made in it.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise not_written(path, error) from error
    return Path(path)


def not_written(path: str | Path, error: OSError) -> DefectkitError:
    """The error to raise where `path` cannot be written because of `error`."""
    reason = REASONS.get(error.errno, error.strerror or str(error))
    return DefectkitError(f"{path} cannot be written: {reason}.")


def _sweep(target: Path) -> None:
    """Remove part files of `target` that killed processes left."""
    name = f".{glob.escape(target.stem)}-*.part{glob.escape(target.suffix)}"
    with suppress(OSError):
        for part in target.parent.glob(name):
            if time.time() - part.stat().st_mtime > STALE:
                part.unlink(missing_ok=True)


def process_pool(
    workers: int | None = None, initializer: Callable[[], None] | None = None
) -> ProcessPoolExecutor:
    """Spawned workers, one per core by default, each beginning with `initializer`.

    Spawned, so that a worker does not start with what its parent has loaded.
    """
    return ProcessPoolExecutor(workers, get_context("spawn"), _begin, (initializer,))


@contextmanager
def executor(
    workers: int | None, scheduler: str | None, initializer: Callable[[], None] | None = None
) -> Iterator[Executor]:
    """Processes, one per core by default, each begun by `initializer`; or a Dask cluster.

    Args:
        workers: how many processes.
        scheduler: address of a Dask scheduler, such as `tcp://host:8786`, to use instead.
            Its workers need this kit installed.
        initializer: what a process does first; workers of a cluster do not.

    Raises DefectkitError where no scheduler answers.
    """
    if scheduler is None:
        with process_pool(workers, initializer) as pool:
            yield pool
        return
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise DefectkitError(
            "A scheduler needs Dask, which is not installed; install defectkit[dask]."
        ) from error
    try:
        client = Client(scheduler, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise DefectkitError(
            f"No Dask scheduler answers at {one_line(scheduler)} ({one_line(error)}); start one, "
            "or leave the address out."
        ) from error
    with client, client.get_executor() as cluster:
        yield cluster


def ahead(pool: Executor, function: Callable, tasks: Iterator[tuple]) -> Iterator:
    """Results in the order of the tasks, with at most `AHEAD` of them under way."""
    waiting = deque(pool.submit(function, *task) for task in islice(tasks, AHEAD))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(pool.submit(function, *task) for task in islice(tasks, 1))


def _begin(initializer: Callable[[], None] | None) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    if initializer:
        initializer()


def _end_with_parent() -> None:
    """End this worker with its parent, which cannot end its workers where it is killed."""
    parent_process().join()
    os._exit(1)
