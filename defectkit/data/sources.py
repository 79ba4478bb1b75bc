"""The data sets that the kit knows: what they are, how to cite them, and where to find them.

`fetch` finds a data set on this machine or downloads it: checked, written whole or not at all, one
process at a time.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import BinaryIO

import pooch
from filelock import Timeout
from tqdm import tqdm

from defectkit import DefectkitError
from defectkit.structures.writing import atomic, locked, make_folder

TIMEOUT = 20.0  # s without a byte from the server
SLOWEST = 10_000  # bytes a second, the mean over `WINDOW`, below which a server is given up
WINDOW = 30.0  # s
ATTEMPTS = 3  # a broken connection starts anew this often
CHUNK = 1 << 14  # bytes
CHECKOUT_DATA = Path(__file__).resolve().parents[2] / "data"


@dataclass(frozen=True)
class DataSource:
    """A data set.

    Attributes:
        name: the word for `defectkit.data.load`.
        title: what it is, in a line.
        label_source: what computed the labels.
        file: name of the file or folder that holds it.
        url: where it is downloaded from; empty where it is not.
        n_bytes: size of the download.
        sha256: checksum of the download.
        licence: terms of use.
        citation: what to cite.
        page: where people read about it; empty for the bundled one.
    """

    name: str
    title: str
    label_source: str
    file: str
    url: str
    n_bytes: int
    sha256: str
    licence: str
    citation: str
    page: str


SOURCES: dict[str, DataSource] = {
    source.name: source
    for source in [
        DataSource(
            name="demo",
            title="defects in 2D hosts, labelled by the CHGNet potential (not DFT)",
            label_source="CHGNet-0.3.0",
            file="demo2d.db",
            url="",
            n_bytes=0,
            sha256="",
            licence="MIT, as the kit",
            citation="B. Deng et al., Nat. Mach. Intell. 5, 1031 (2023), for the potential",
            page="",
        ),
        DataSource(
            name="imp2d",
            title="Imp2d: 17,364 adsorbates and interstitials in 44 2D hosts, PBE",
            label_source="DFT-PBE (Imp2d)",
            file="imp2d.db",
            url="https://wiki.fysik.dtu.dk/cmr-files/imp2d.db",
            n_bytes=71_819_264,
            sha256="3a71db999b477112da248dcf762c4384e455689953679d58b3d71a91e7148fc4",
            licence="see the page; not passed on with the kit",
            citation="J. Davidsson et al., npj 2D Mater. Appl. 7, 26 (2023)",
            page="https://cmr.fysik.dtu.dk/imp2d/imp2d.html",
        ),
        DataSource(
            name="2dmd",
            title="2DMD: vacancies and substitutions in large supercells of six 2D hosts, PBE",
            label_source="DFT-PBE (2DMD)",
            file="2dmd",
            url="",
            n_bytes=0,
            sha256="",
            licence="CC BY 4.0",
            citation="P. Huang et al., npj 2D Mater. Appl. 7, 6 (2023)",
            page="https://research.constructor.tech/open/2d-materials-point-defects",
        ),
    ]
}


def find_source(name: str) -> DataSource:
    """The source of that name; DefectkitError with all names where there is none."""
    if name not in SOURCES:
        known = ", ".join(SOURCES)
        raise DefectkitError(
            f"There is no data set '{name}'; use {known}, or the path of a folder with structure "
            "files and a CSV file of targets."
        )
    return SOURCES[name]


def data_folder() -> Path:
    """Where data sets are kept: `DEFECTKIT_DATA`, else the user's cache folder."""
    override = os.environ.get("DEFECTKIT_DATA")
    return Path(override) if override else Path(pooch.os_cache("defectkit"))


def fetch(name: str, progress: bool = True) -> Path:
    """Path of the data set `name`, downloaded first where it has to be.

    A download goes to a part file, is checked for size and SHA-256, and only then gets its
    name; what is there already is checked before it is used. A second process waits for the
    first. No more bytes are taken than the file has. Raises DefectkitError, one sentence with
    what to do by hand, where there is no network, no such file at the server, a connection that
    breaks `ATTEMPTS` times, a server slower than `SLOWEST`, a file with other bytes, or a folder
    that cannot be written.
    """
    source = find_source(name)
    target = data_folder() / source.file
    if not source.url:
        return _find_by_hand(source, target)
    if not _fault(source, target):
        return target
    try:
        make_folder(target.parent)
        with _in_turn(target):
            if _fault(source, target):
                _download(source, target, progress)
    except DefectkitError as error:
        raise _failure(source, target, str(error).removesuffix(".")) from error
    return target


@contextmanager
def _in_turn(target: Path) -> Iterator[None]:
    """Wait for other processes that download the same file.

    This only spares a second download; that the file is whole is up to `atomic`. Where there can be
    no lock, as beside one that another user left, the download goes on without.
    """
    lock = f"{target}.lock"
    with ExitStack() as stack:
        with suppress(OSError):
            try:
                stack.enter_context(locked(lock))
            except Timeout:
                print(f"Another process downloads {target.name}; waiting for it.", file=sys.stderr)
                stack.enter_context(locked(lock, timeout=-1))
        yield


def _find_by_hand(source: DataSource, target: Path) -> Path:
    places = [target, CHECKOUT_DATA / source.file]
    for place in places:
        if os.path.exists(place):
            return place
    advice = f"get it from {source.page} and save it" if source.page else "put it"
    raise DefectkitError(
        f"The data set '{source.name}' is neither at {places[0]} nor at {places[1]}; "
        f"{advice} as one of these, or pass path=... to load."
    )


def _fault(source: DataSource, path: Path) -> str:
    """What is wrong with the file at `path`; empty where it is the right one."""
    if not os.path.isfile(path):  # false where it may not even be looked for
        return "the file is missing"
    size = path.stat().st_size
    if size != source.n_bytes:
        return f"the file has {size:,} bytes instead of {source.n_bytes:,}"
    try:
        digest = pooch.file_hash(str(path), alg="sha256")
    except OSError as error:
        return f"the file cannot be read ({error.strerror or error})"
    return "" if digest == source.sha256 else "the file's SHA-256 is not the expected one"


class _Transfer(Thread):
    """One download into a file, in a thread of its own.

    Bytes that arrive one by one would keep whoever reads them from looking at the clock.

    Attributes:
        taken: bytes so far.
        error: why it ended early.
    """

    def __init__(self, source: DataSource, file: BinaryIO, progress: bool) -> None:
        super().__init__(daemon=True)  # one that is given up may hang on for as long as it likes
        self.source, self.file = source, file
        self.bar = tqdm(
            total=source.n_bytes, unit="B", unit_scale=True, ncols=79, disable=not progress
        )
        self.download = pooch.HTTPDownloader(self.bar, chunk_size=CHUNK, timeout=TIMEOUT)
        self.taken, self.error, self.given_up = 0, None, False

    def run(self) -> None:
        """Download the file."""
        try:
            self.download(self.source.url, self, None)
        except Exception as error:  # `wait` raises it
            self.error = error

    def write(self, chunk: bytes) -> None:
        """Take a chunk from pooch; DefectkitError where the file would become too long."""
        if self.given_up:
            raise DefectkitError("it was given up")
        self.taken += len(chunk)
        if self.taken > self.source.n_bytes:
            raise DefectkitError(f"the server sends more than {self.source.n_bytes:,} bytes")
        self.file.write(chunk)

    def flush(self) -> None:
        """Does nothing: pooch calls it after every chunk, and the file is flushed at its end."""

    def wait(self) -> None:
        """Start, and wait for the end; raises what ended it early, DefectkitError if too slow."""
        self.start()
        try:
            since, before = time.monotonic(), 0
            while self.is_alive():
                self.join(0.05)
                if (seconds := time.monotonic() - since) > WINDOW:
                    if self.taken - before < SLOWEST * seconds:
                        raise DefectkitError(
                            f"the server sends less than {SLOWEST // 1000} kB a second "
                            f"({(self.taken - before) / seconds / 1e3:.1f} in {seconds:.0f} s)"
                        )
                    since, before = time.monotonic(), self.taken
        finally:
            self.given_up = True
            self.bar.close()  # so that a message starts on a line of its own
        if self.error:
            raise self.error


def _download(source: DataSource, target: Path, progress: bool) -> None:
    with atomic(target) as part:
        for attempts_left in reversed(range(ATTEMPTS)):
            with open(part, "wb") as file:
                if _transfer(source, file, progress, last=not attempts_left):
                    break
        if fault := _fault(source, part):
            raise DefectkitError(f"after the download {fault}")


def _transfer(source: DataSource, file: BinaryIO, progress: bool, last: bool) -> bool:
    """Whether a download came to its end; DefectkitError where the `last` attempt did not."""
    from requests import exceptions

    broken = exceptions.ConnectionError, exceptions.Timeout, exceptions.ChunkedEncodingError
    try:
        _Transfer(source, file, progress).wait()
    except exceptions.HTTPError as error:
        reason = f"the server answered {error.response.status_code}"
        raise DefectkitError(reason) from error
    except broken as error:
        if last:
            reason = f"no connection held in {ATTEMPTS} attempts ({type(error).__name__})"
            raise DefectkitError(reason) from error
        return False
    except (exceptions.RequestException, ValueError) as error:  # as of a length that is no number
        raise DefectkitError(f"the server's answer makes no sense ({error})") from error
    return True


def _failure(source: DataSource, target: Path, reason: str) -> DefectkitError:
    return DefectkitError(
        f"The data set '{source.name}' could not be fetched: {reason}; download {source.url} "
        f"by hand and save it as {target}, or set DEFECTKIT_DATA to a folder that holds "
        f"{source.file}."
    )
