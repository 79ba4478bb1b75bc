"""Files are there whole or not at all, and what goes wrong is one sentence."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.figure import Figure

from defectkit import DefectkitError
from defectkit.structures.writing import atomic, keep, make_folder, write_text

FULL = Path("/dev/full")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_gets_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with atomic(path) as part:
        assert (part.parent, part.suffix) == (tmp_path, ".csv")
        pd.DataFrame({"a": [1]}).to_csv(part, index=False)
        assert path.read_text() == "old"
    assert path.read_text() == "a\n1\n"
    assert names(tmp_path) == ["table.csv"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, DefectkitError])
def test_a_writer_that_fails_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def write() -> None:
        with atomic(path) as part:
            part.write_text("hal")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["table.csv"]


def test_writers_may_go_by_the_ending(tmp_path):
    mpl.use("Agg")
    figure = Figure()
    for name in ("figure.png", "figure.svg"):
        with atomic(tmp_path / name) as part:
            figure.savefig(part)
    with atomic(tmp_path / "table.csv.gz") as part:
        pd.DataFrame({"a": [1]}).to_csv(part)
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "table.csv.gz").read_bytes()[:2] == b"\x1f\x8b"


@pytest.mark.skipif(os.name == "nt", reason="permissions of Unix")
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_permissions_are_those_of_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        with atomic(tmp_path / "weights") as part:
            part.unlink()  # a writer that makes a private file of its own
            os.close(os.open(part, os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    assert (tmp_path / "weights").stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_link_is_followed(tmp_path):
    (tmp_path / "large disk").mkdir()
    link = tmp_path / "rows.db"
    link.symlink_to(tmp_path / "large disk" / "rows.db")
    write_text(link, "new")
    assert link.is_symlink()
    assert names(tmp_path / "large disk") == ["rows.db"]


def test_what_is_in_the_way_is_named(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    for path, reason in (
        (tmp_path / "missing" / "a.txt", "folder does not exist"),
        (tmp_path / "file" / "a.txt", "is a file and no folder"),
        (tmp_path / "folder", "folder of this name"),
        (tmp_path / ("a" * 300), "too long"),
    ):
        with pytest.raises(DefectkitError, match=reason) as caught:
            write_text(path, "a")
        assert str(caught.value).startswith(str(path))
    assert names(tmp_path) == ["file", "folder"]
    with pytest.raises(DefectkitError, match="in the way"):
        make_folder(tmp_path / "file")
    with pytest.raises(DefectkitError, match="is a file and no folder"):
        make_folder(tmp_path / "file" / "run")
    assert make_folder(tmp_path / "a" / "b").is_dir()


@pytest.mark.skipif(not FULL.exists(), reason="no disk that is always full")
def test_a_full_disk_is_said(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(DefectkitError, match="disk is full"), atomic(path), open(FULL, "w") as file:
        file.write("a")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["table.csv"]


@pytest.mark.skipif(os.name == "nt", reason="pipes of Unix")
def test_a_special_file_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(DefectkitError, match="in the way"):
        write_text(pipe, "a")
    assert pipe.is_fifo()


def test_the_fault_of_another_file_is_not_this_ones(tmp_path):
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "copy") as part:
        part.write_bytes((tmp_path / "original").read_bytes())
    assert names(tmp_path) == []


def test_no_permission_is_said(tmp_path, monkeypatch):
    def refused(*args):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(DefectkitError, match="permissions"):
        write_text(tmp_path / "a.txt", "a")
    assert names(tmp_path) == []


def test_a_killed_writer_leaves_the_older_file(tmp_path):
    path = tmp_path / "summary.yaml"
    path.write_text("old")
    code = (
        "import os, sys\nfrom defectkit.structures.writing import atomic\n"
        "with atomic(sys.argv[1]) as part:\n"
        "    part.write_text('ne')\n    os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert path.read_text() == "old"


def test_a_part_of_a_killed_writer_is_removed_by_the_next_one(tmp_path):
    """And nobody else's: not one that is being written, not one of another file."""
    path = tmp_path / "table [1].csv"
    for name in (".table [1]-0.part.csv", ".table [1]-1.part.csv", ".table-0.part.csv"):
        (tmp_path / name).touch()
    for name in (".table [1]-0.part.csv", ".table-0.part.csv"):
        os.utime(tmp_path / name, (0, 0))
    write_text(path, "a")
    assert names(tmp_path) == [".table [1]-1.part.csv", ".table-0.part.csv", "table [1].csv"]


def test_an_output_that_cannot_be_written_is_said_before_the_work(tmp_path):
    worked = []
    with pytest.raises(DefectkitError), atomic(tmp_path / "no" / "table.csv"):
        worked.append(1)
    assert not worked


def test_a_fault_of_no_file_is_no_fault_of_writing(tmp_path):
    with pytest.raises(ConnectionRefusedError), atomic(tmp_path / "a.txt"):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


def test_what_cannot_be_kept_is_said_once_a_folder(tmp_path, capsys):
    (tmp_path / "file").touch()
    for name in ("a", "b"):
        keep(tmp_path / "file" / "cache" / name, lambda part: part.write_text("a"))
    said = capsys.readouterr().err
    assert said.count("Nothing is kept") == said.count("\n") == 1
    keep(tmp_path / "cache" / "a", lambda part: part.write_text("a"))
    assert names(tmp_path / "cache") == ["a"]
    assert capsys.readouterr().err == ""
