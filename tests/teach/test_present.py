"""The page for lectures: its notebook, and that Voila serves it."""

import socket
import subprocess
import time
import urllib.error
import urllib.request

import nbformat
import pytest

from defectkit.teach import notebooks


def test_the_notebook_is_valid_and_always_the_same(tmp_path):
    path = notebooks.write_lecture(tmp_path)
    nbformat.validate(nbformat.read(path, as_version=4))
    first = path.read_bytes()
    assert notebooks.write_lecture(tmp_path).read_bytes() == first


@pytest.mark.slow
def test_voila_serves_explorer_and_upload_and_hides_the_code(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            notebooks.lecture_command(notebooks.write_lecture(tmp_path), port),
            stdout=log,
            stderr=log,
        )
    try:
        page = _page(f"http://127.0.0.1:{port}/", server)
    finally:
        server.terminate()
        server.wait(timeout=30)
    assert "Whom does a defect listen to?" in page, (tmp_path / "log").read_text()
    assert "Your own structure" in page
    assert "application/vnd.jupyter.widget-view+json" in page
    assert "set_num_threads" not in page


def _page(address: str, server: subprocess.Popen) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and server.poll() is None:
        try:
            return urllib.request.urlopen(address, timeout=240).read().decode()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(1)
    return ""
