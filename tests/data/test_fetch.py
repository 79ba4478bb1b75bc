import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from defectkit import DefectkitError
from defectkit.data import sources as module
from defectkit.data.sources import SOURCES, fetch
from defectkit.structures import writing

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes
MOVED = {"/moved": "/ok", "/round": "/round", "/elsewhere": "file:///etc/hostname"}
LENGTHS = {"/short": "7", "/long": str(10**12), "/strange": "soon", "/endless": "", "/open": ""}


class Server(ThreadingHTTPServer):
    """Serves CONTENT at /ok, and at other paths what goes wrong."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.ended = threading.Event()
        self.requests: list[str] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        seen = self.server.requests.count(self.path)
        self.server.requests.append(self.path)
        if self.path == "/404":
            self.send_error(404)
            return
        if self.path in MOVED:
            self.answer(302, Location=MOVED[self.path])
            return
        if self.path == "/trickle-head":
            self.send_slowly(b"HTTP/1.1 200 OK\r\nX: ", b"a", 0.05)
            return
        length = LENGTHS.get(self.path, str(len(CONTENT)))
        self.answer(200, **({"Content-Length": length} if length else {}))
        if self.path == "/cut" or (self.path == "/cut-once" and not seen):
            self.wfile.write(CONTENT[: len(CONTENT) // 2])
        elif self.path == "/wrong":
            self.wfile.write(CONTENT[::-1])
        elif self.path == "/stall":
            self.wfile.write(CONTENT[:1000])
            self.wfile.flush()
            time.sleep(2)
        elif self.path == "/slow":
            for start in range(0, len(CONTENT), 64_000):
                self.wfile.write(CONTENT[start : start + 64_000])
                self.wfile.flush()
                time.sleep(0.1)
        elif self.path == "/trickle":
            self.send_slowly(b"", b"a", 0.05)
        elif self.path == "/endless":
            self.send_slowly(CONTENT, CONTENT, 0.001)
        else:
            self.wfile.write(CONTENT)

    def answer(self, status, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send_slowly(self, first, piece, pause):
        """Until the client has gone, or the test has ended."""
        with suppress(OSError):
            self.wfile.write(first)
            while not self.server.ended.wait(pause):
                self.wfile.write(piece)
                self.wfile.flush()

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.ended.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DEFECTKIT_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


def point_to(monkeypatch, url: str) -> None:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    source = replace(SOURCES["imp2d"], url=url, n_bytes=len(CONTENT), sha256=sha256)
    monkeypatch.setitem(SOURCES, "imp2d", source)


def failure(folder: Path) -> str:
    """Message of a failed fetch: one sentence that says what to do, nothing left behind."""
    with pytest.raises(DefectkitError) as caught:
        fetch("imp2d", progress=False)
    message = str(caught.value)
    assert "by hand" in message
    assert str(folder / "imp2d.db") in message
    assert "DEFECTKIT_DATA" in message
    assert message.count(". ") == 0
    assert "\n" not in message
    if folder.is_dir():
        assert {p.name for p in folder.iterdir()} <= {"imp2d.db.lock"}
    return message


def test_downloads_once_and_keeps_the_file(server, folder, monkeypatch, capsys):
    point_to(monkeypatch, server.url("/ok"))
    path = fetch("imp2d")
    assert path == folder / "imp2d.db"
    assert path.read_bytes() == CONTENT
    assert "100%" in capsys.readouterr().err
    assert fetch("imp2d") == path
    assert server.requests == ["/ok"]


def test_damaged_file_is_fetched_again(server, folder, monkeypatch):
    point_to(monkeypatch, server.url("/ok"))
    folder.mkdir()
    (folder / "imp2d.db").write_bytes(CONTENT[:-1] + b"?")
    assert fetch("imp2d", progress=False).read_bytes() == CONTENT


def test_not_found_is_final(server, folder, monkeypatch):
    point_to(monkeypatch, server.url("/404"))
    assert "answered 404" in failure(folder)
    assert server.requests == ["/404"]


def test_wrong_bytes_are_not_kept(server, folder, monkeypatch):
    point_to(monkeypatch, server.url("/wrong"))
    assert "SHA-256" in failure(folder)


def test_wrong_size_is_said(server, folder, monkeypatch):
    point_to(monkeypatch, server.url("/ok"))
    monkeypatch.setitem(SOURCES, "imp2d", replace(SOURCES["imp2d"], n_bytes=7))
    assert "sends more than 7 bytes" in failure(folder)


def test_cut_connection_starts_anew(server, folder, monkeypatch):
    point_to(monkeypatch, server.url("/cut-once"))
    assert fetch("imp2d", progress=False).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_connection_that_always_breaks(server, folder, monkeypatch):
    point_to(monkeypatch, server.url("/cut"))
    assert "3 attempts" in failure(folder)
    assert len(server.requests) == 3


def test_slow_server_is_waited_for(server, folder, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.5)
    point_to(monkeypatch, server.url("/slow"))
    assert fetch("imp2d", progress=False).read_bytes() == CONTENT


def test_silent_server_is_given_up(server, folder, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    point_to(monkeypatch, server.url("/stall"))
    assert "2 attempts" in failure(folder)


def test_no_network(folder, monkeypatch):
    point_to(monkeypatch, "http://127.0.0.1:9/imp2d.db")  # nobody listens there
    assert "no connection" in failure(folder)


def test_part_file_of_a_killed_process_is_no_obstacle(server, folder, monkeypatch):
    point_to(monkeypatch, server.url("/ok"))
    folder.mkdir()
    part = folder / ".imp2d-0123abcd.part.db"
    part.write_bytes(b"half")
    os.utime(part, (0, 0))
    assert fetch("imp2d", progress=False).read_bytes() == CONTENT
    assert [path.name for path in folder.iterdir()] == ["imp2d.db"]


def test_two_processes_at_once_download_once(server, folder, monkeypatch):
    point_to(monkeypatch, server.url("/slow"))
    script = (
        "import json, sys\n"
        "from defectkit.data.sources import SOURCES, DataSource, fetch\n"
        "SOURCES['imp2d'] = DataSource(**json.loads(sys.argv[1]))\n"
        "print(fetch('imp2d', progress=False).stat().st_size)\n"
    )
    source = json.dumps(SOURCES["imp2d"].__dict__)
    root = str(Path(module.__file__).parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, source], stdout=subprocess.PIPE, env=environment
        )
        for _ in range(2)
    ]
    assert [int(p.communicate(timeout=60)[0]) for p in processes] == [len(CONTENT)] * 2
    assert server.requests == ["/slow"]


def test_cache_that_cannot_be_written(server, tmp_path, folder, monkeypatch):
    point_to(monkeypatch, server.url("/ok"))
    (tmp_path / "file").write_text("no folder")
    blocked = tmp_path / "file" / "cache"
    monkeypatch.setenv("DEFECTKIT_DATA", str(blocked))
    assert "cannot be written" in failure(blocked)


def test_read_only_folder(server, folder, monkeypatch):
    def deny(*_args, **_options):
        raise PermissionError(13, "Permission denied", str(folder))

    point_to(monkeypatch, server.url("/ok"))
    monkeypatch.setattr(writing.tempfile, "TemporaryFile", deny)
    assert "cannot be written: its folder may not be written to" in failure(folder)
    assert server.requests == []


def test_a_lock_that_cannot_be_had_is_gone_without(server, folder, monkeypatch):
    def deny(_self):
        raise PermissionError(13, "Permission denied")

    point_to(monkeypatch, server.url("/ok"))
    monkeypatch.setattr(writing.FileLock, "_acquire", deny)  # another user's file is there
    assert fetch("imp2d", progress=False).read_bytes() == CONTENT


def test_the_lock_of_a_killed_process_is_no_obstacle(server, folder, monkeypatch):
    point_to(monkeypatch, server.url("/ok"))
    folder.mkdir()
    code = (
        "import os, sys\nfrom filelock import FileLock\n"
        "FileLock(sys.argv[1]).acquire()\nos.kill(os.getpid(), 9)"
    )
    lock = folder / "imp2d.db.lock"
    subprocess.run([sys.executable, "-c", code, str(lock)], check=False)
    assert lock.exists()
    assert fetch("imp2d", progress=False).read_bytes() == CONTENT
    assert [path.name for path in folder.iterdir()] == ["imp2d.db"]


@pytest.mark.parametrize("path", ["/trickle", "/trickle-head"])
def test_a_server_that_sends_byte_by_byte_is_given_up(server, folder, monkeypatch, path):
    monkeypatch.setattr(module, "WINDOW", 0.4)
    point_to(monkeypatch, server.url(path))
    begin = time.perf_counter()
    assert "less than 10 kB a second" in failure(folder)
    assert time.perf_counter() - begin < 5
    assert server.requests == [path]


def test_no_more_is_taken_than_the_file_has(server, folder, monkeypatch):
    point_to(monkeypatch, server.url("/endless"))
    assert "sends more than 512,000 bytes" in failure(folder)
    assert server.requests == ["/endless"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/short", "7 bytes instead of 512,000"),
        ("/long", "3 attempts"),
        ("/strange", "makes no sense"),
        ("/round", "makes no sense (Exceeded 30 redirects.)"),
        ("/elsewhere", "makes no sense"),
    ],
)
def test_a_server_that_lies_is_one_sentence(server, folder, monkeypatch, path, reason):
    point_to(monkeypatch, server.url(path))
    assert reason in failure(folder)


@pytest.mark.parametrize("path", ["/moved", "/open"])
def test_a_file_that_has_moved_or_has_no_length_is_fetched(server, folder, monkeypatch, path):
    point_to(monkeypatch, server.url(path))
    assert fetch("imp2d", progress=False).read_bytes() == CONTENT


def test_a_file_that_may_not_be_read_is_fetched_again(server, folder, monkeypatch):
    def deny(path, alg):
        if Path(path).name == "imp2d.db":
            raise PermissionError(13, "Permission denied")
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()

    point_to(monkeypatch, server.url("/ok"))
    folder.mkdir()
    (folder / "imp2d.db").write_bytes(CONTENT)
    monkeypatch.setattr(module.pooch, "file_hash", deny)
    assert fetch("imp2d", progress=False).read_bytes() == CONTENT
    assert server.requests == ["/ok"]


def test_complete_file_in_a_read_only_folder_is_used(folder, monkeypatch):
    point_to(monkeypatch, "http://127.0.0.1:9/imp2d.db")
    folder.mkdir()
    (folder / "imp2d.db").write_bytes(CONTENT)
    monkeypatch.setattr(module, "locked", None)  # must not be asked for
    assert fetch("imp2d") == folder / "imp2d.db"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
def test_full_disk_leaves_nothing(server, folder, monkeypatch):
    point_to(monkeypatch, server.url("/ok"))
    with open("/dev/full", "wb") as full:
        monkeypatch.setattr(module, "open", lambda *_: full, raising=False)
        assert "the disk is full" in failure(folder)


def test_sets_without_download_say_where_to_put_them(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHECKOUT_DATA", tmp_path / "checkout")
    with pytest.raises(DefectkitError, match=r"2dmd.*/open/2d-materials-point-defects .*path="):
        fetch("2dmd")
    with pytest.raises(DefectkitError, match=r"demo2d\.db"):
        fetch("demo")
    folder.mkdir()
    (folder / "demo2d.db").write_bytes(b"")
    assert fetch("demo") == folder / "demo2d.db"


def test_unknown_name_lists_the_known():
    with pytest.raises(DefectkitError, match="demo, imp2d, 2dmd"):
        fetch("c2db")


def test_cache_folder_is_the_users_own(monkeypatch):
    monkeypatch.delenv("DEFECTKIT_DATA", raising=False)
    assert "defectkit" in str(module.data_folder())
