"""Finds a data set on this machine, or downloads it: checked, atomic, one process at a time."""

import os
from pathlib import Path

import pooch
from filelock import FileLock

from defectkit import DefectkitError
from defectkit.data.sources import DataSource, find_source

TIMEOUT = 30.0  # s without a byte from the server
ATTEMPTS = 3  # a broken connection starts anew this often
CHUNK = 1 << 16  # bytes
CHECKOUT_DATA = Path(__file__).resolve().parents[2] / "data"


def data_folder() -> Path:
    """Where data sets are kept: `DEFECTKIT_DATA`, else the user's cache folder."""
    override = os.environ.get("DEFECTKIT_DATA")
    return Path(override) if override else Path(pooch.os_cache("defectkit"))


def fetch(name: str, progress: bool = True) -> Path:
    """Path of the data set `name`, downloaded first where it has to be.

    A download goes to a part file, is checked for size and SHA-256, and only then gets its
    name; what is there already is checked before it is used. A second process waits for the
    first. Raises DefectkitError, one sentence with what to do by hand, where there is no
    network, no such file at the server, a connection that breaks `ATTEMPTS` times, a file with
    other bytes, or a folder that cannot be written.
    """
    source = find_source(name)
    target = data_folder() / source.file
    if not source.url:
        return _find_by_hand(source, target)
    if not _fault(source, target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if _fault(source, target):
                _download(source, target, progress)
    except OSError as error:
        raise _failure(
            source, target, f"{target.parent} cannot be written ({error.strerror or error})"
        ) from error
    return target


def _find_by_hand(source: DataSource, target: Path) -> Path:
    places = [target, CHECKOUT_DATA / source.file]
    for place in places:
        if place.exists():
            return place
    advice = f"get it from {source.page} and save it" if source.page else "put it"
    raise DefectkitError(
        f"The data set '{source.name}' is neither at {places[0]} nor at {places[1]}; "
        f"{advice} as one of these, or pass path=... to load."
    )


def _fault(source: DataSource, path: Path) -> str:
    """What is wrong with the file at `path`; empty where it is the right one."""
    if not path.is_file():
        return "the file is missing"
    size = path.stat().st_size
    if size != source.n_bytes:
        return f"the file has {size:,} bytes instead of {source.n_bytes:,}"
    if pooch.file_hash(str(path), alg="sha256") != source.sha256:
        return "the file's SHA-256 is not the expected one"
    return ""


def _download(source: DataSource, target: Path, progress: bool) -> None:
    from requests.exceptions import HTTPError, RequestException

    part = target.with_name(f"{target.name}.part")
    download = pooch.HTTPDownloader(progressbar=progress, chunk_size=CHUNK, timeout=TIMEOUT)
    try:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                download(source.url, str(part), None)
                break
            except HTTPError as error:
                reason = f"the server answered {error.response.status_code}"
                raise _failure(source, target, reason) from error
            except RequestException as error:
                if attempt == ATTEMPTS:
                    reason = f"no connection held in {ATTEMPTS} attempts ({type(error).__name__})"
                    raise _failure(source, target, reason) from error
        fault = _fault(source, part)
        if fault:
            raise _failure(source, target, f"after the download {fault}")
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _failure(source: DataSource, target: Path, reason: str) -> DefectkitError:
    return DefectkitError(
        f"The data set '{source.name}' could not be fetched: {reason}; download {source.url} "
        f"by hand and save it as {target}, or set DEFECTKIT_DATA to a folder that holds "
        f"{source.file}."
    )
