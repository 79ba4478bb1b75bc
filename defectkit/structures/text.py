"""Text files as people save them: plain or gzipped, UTF-8 or a Western Windows encoding."""

import codecs
import gzip
import re
import zlib
from pathlib import Path

from defectkit import DefectkitError

MAX_BYTES = 50_000_000  # ten times what the largest structure that is read needs
WIDE = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x19\x1c-\x1f\x7f]")  # bytes that no text has


def read_text(path: Path, most: int = MAX_BYTES) -> str:
    """The text of a file, its line ends as Unix has them; what ends in .gz is unpacked.

    UTF-8 with or without a byte-order mark, else Windows-1252. Raises DefectkitError where there
    is no such file, where it may not be read, is a folder, longer than `most` bytes, binary, or in
    UTF-16 or UTF-32.
    """
    raw = _bytes(path, most + 1)
    if len(raw) > most:
        raise DefectkitError(
            f"{path} is longer than {most // 1_000_000} MB, the most that is read; split it."
        )
    if raw.startswith(WIDE):
        raise DefectkitError(f"{path} is encoded as UTF-16 or UTF-32; save it as UTF-8.")
    if CONTROL.search(raw):
        raise DefectkitError(
            f"{path} holds bytes that no text has; it is damaged, or of another kind than its "
            "name says."
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _bytes(path: Path, most: int) -> bytes:
    try:
        if path.is_dir():
            raise DefectkitError(f"{path} is a folder; name a file.")
        if not path.exists():
            raise DefectkitError(f"{path}: there is no such file; check its name and folder.")
        if not path.is_file():
            raise DefectkitError(f"{path} is no file with contents; name another.")
        packed = path.suffix.lower() == ".gz"
        with gzip.open(path) if packed else path.open("rb") as file:
            return file.read(most)
    except PermissionError as error:
        raise DefectkitError(
            f"{path} may not be read (permission denied); change its permissions, or ask its owner."
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DefectkitError(
            f"{path} is no whole gzip file ({error}); copy or pack it again."
        ) from error
    except (OSError, ValueError) as error:  # a name too long, or with a NUL in it
        reason = getattr(error, "strerror", None) or error
        raise DefectkitError(f"{path} cannot be opened ({reason}); check its name.") from error
