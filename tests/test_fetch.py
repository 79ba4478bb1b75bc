import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from defectkit import DefectkitError
from defectkit.data import fetch as module
from defectkit.data.fetch import fetch
from defectkit.data.sources import SOURCES

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes


class Server(ThreadingHTTPServer):
    """Serves CONTENT at /ok and its faults at /404, /cut, /wrong, /slow, /stall, /cut-once."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
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
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
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
        else:
            self.wfile.write(CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
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
    assert "512,000 bytes instead of 7" in failure(folder)


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
    (folder / "imp2d.db.part").write_bytes(b"half")
    assert fetch("imp2d", progress=False).read_bytes() == CONTENT
    assert not (folder / "imp2d.db.part").exists()


def test_two_processes_at_once_download_once(server, folder, monkeypatch):
    point_to(monkeypatch, server.url("/slow"))
    script = (
        "import json, sys\n"
        "from defectkit.data.fetch import fetch\n"
        "from defectkit.data.sources import SOURCES, DataSource\n"
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
        raise PermissionError(13, "Permission denied")

    point_to(monkeypatch, server.url("/ok"))
    monkeypatch.setattr(module, "FileLock", deny)  # what a read-only folder does to its lock file
    assert "cannot be written (Permission denied)" in failure(folder)


def test_complete_file_in_a_read_only_folder_is_used(folder, monkeypatch):
    point_to(monkeypatch, "http://127.0.0.1:9/imp2d.db")
    folder.mkdir()
    (folder / "imp2d.db").write_bytes(CONTENT)
    monkeypatch.setattr(module, "FileLock", None)  # must not be asked for
    assert fetch("imp2d") == folder / "imp2d.db"


def test_full_disk_leaves_nothing(server, folder, monkeypatch):
    def fill(_self, _url, output_file, _pooch):
        Path(output_file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    point_to(monkeypatch, server.url("/ok"))
    monkeypatch.setattr(module.pooch.HTTPDownloader, "__call__", fill)
    assert "No space left on device" in failure(folder)


def test_sets_without_download_say_where_to_put_them(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHECKOUT_DATA", tmp_path / "checkout")
    with pytest.raises(DefectkitError, match=r"2dmd.*10\.1038/s41699-023-00369-1.*path="):
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
