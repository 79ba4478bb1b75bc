"""Files that are there whole or not at all: written beside their place, then renamed.

Who is killed in between leaves the older file as it was. A writer that needs several files to
belong together writes last the one that says that all are there.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from defectkit import DefectkitError

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
}


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Where to write what shall become `path`; it gets its name when the block is done.

        with atomic("table.csv") as part:
            table.to_csv(part)

    The part file lies in the same folder and ends like `path`, for writers that go by the ending.
    When the block raises, it is removed and `path` stays what it was. The result has the
    permissions that the umask asks for, whatever the writer chose. A link is followed.

    Raises DefectkitError that names `path` where it cannot be written: a full disk, no
    permission, a missing folder, a folder of this name.
    """
    target = Path(os.path.realpath(path))
    part = target.with_name(f".{target.stem}-{uuid4().hex[:8]}.part{target.suffix}")
    try:
        if target.exists() and not target.is_file():
            raise OSError(errno.EISDIR if target.is_dir() else errno.EEXIST, "", str(target))
        with open(part, "xb") as file:  # it is the umask's turn here
            mode = os.fstat(file.fileno()).st_mode & 0o777
        yield part
        os.chmod(part, mode)
        os.replace(part, target)
    except OSError as error:
        if error.filename not in (None, str(part), str(target), part, target):
            raise  # another file's fault
        raise not_written(path, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text as UTF-8, whole or not at all; see `atomic`."""
    with atomic(path) as part:
        part.write_text(text, encoding="utf-8")


def make_folder(path: str | Path) -> Path:
    """The folder `path`, made with its parents where it is missing; DefectkitError if it cannot."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_written(path, error) from error
    return Path(path)


def not_written(path: str | Path, error: OSError) -> DefectkitError:
    """What to say where `path` cannot be written because of `error`."""
    reason = REASONS.get(error.errno, error.strerror or str(error))
    return DefectkitError(f"{path} cannot be written: {reason}.")
