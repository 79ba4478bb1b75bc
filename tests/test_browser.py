"""The students' notebooks in a real JupyterLab and a real browser.

They must run through, unanswered as they are, and draw what they should.
Screenshots are kept in build/browser/. Where chromium is missing the tests are skipped, but not in
continuous integration, where they must run.
"""

import io
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from defectkit import notebooks, teach

ROOT = Path(__file__).resolve().parent.parent
SHOTS = ROOT / "build" / "browser"
CHROMIUM = shutil.which("chromium")
ARGUMENTS = [
    "--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
SETTINGS = {
    # Draw every cell, seen or not; ask nothing about the kernel.
    "@jupyterlab/notebook-extension/tracker": {
        "windowingMode": "none",
        "autoStartDefaultKernel": True,
    },
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false"},
}
RUN_SECONDS = 240
# Every code cell has run, or one has failed.
DONE = """() => {
    const prompts = [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")];
    const failed = document.querySelector('[data-mime-type*="error"]');
    return failed || (prompts.length && prompts.every(p => /\\[\\d+\\]/.test(p.innerText)));
}"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"), reason="chromium is not installed"
    ),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address of a notebook in a JupyterLab of its own, with copies of the students' notebooks."""
    work = tmp_path_factory.mktemp("lab")
    shutil.copytree(notebooks.FOLDER, work / "notebooks")
    for name, values in SETTINGS.items():
        path = work / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(8)
    command = [
        sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root",
        f"--ServerApp.port={port}", f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={work / 'notebooks'}",
        f"--LabApp.user_settings_dir={work / 'settings'}",
        f"--LabApp.workspaces_dir={work / 'workspaces'}",
    ]  # fmt: skip
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (work / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/api?token={token}", server, work / "log")
        yield lambda name: f"{address}/lab/tree/{name}.ipynb?token={token}&reset"
    finally:
        server.terminate()
        server.wait(timeout=30)


def _wait_for(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5)
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()}")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "continuous integration must have chromium"
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"),
            executable_path=CHROMIUM,
            args=ARGUMENTS,
            viewport={"width": 1300, "height": 1000},
        )
        yield context.pages[0]
        context.close()


def _run_all(page) -> None:
    """Run every cell; ask again if JupyterLab, told before its kernel answered, has forgotten."""
    waiting = page.locator(".jp-CodeCell .jp-InputPrompt", has_text="[*]")
    deadline = time.monotonic() + RUN_SECONDS
    while not page.evaluate(DONE):
        assert time.monotonic() < deadline, "the cells do not come to an end"
        if waiting.count() == 0:
            page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
            page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()
        page.wait_for_timeout(2000)


def _move_slider(page) -> None:
    """The cutoff slider of notebook 02 changes the picture beside it."""
    picture = page.locator(".jp-OutputArea .widget-image").first
    picture.scroll_into_view_if_needed()
    before = picture.screenshot(path=SHOTS / "cutoff_before.png")
    handle = page.locator(".jp-OutputArea .widget-hslider .noUi-handle").first
    handle.focus()
    for _ in range(20):
        handle.press("ArrowRight")
    deadline = time.monotonic() + 20
    while picture.screenshot(path=SHOTS / "cutoff_after.png") == before:
        assert time.monotonic() < deadline, "the picture does not follow the slider"
        page.wait_for_timeout(300)


@pytest.mark.parametrize("name", [source.stem for source in notebooks.sources()])
def test_notebook_runs_in_jupyterlab_without_errors(page, lab, name):
    page.goto(lab(name), wait_until="domcontentloaded")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
    page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for(timeout=60_000)
    SHOTS.mkdir(parents=True, exist_ok=True)
    try:
        _run_all(page)
    finally:
        page.screenshot(path=SHOTS / f"{name}.png")
    errors = page.locator('[data-mime-type*="error"]')
    assert errors.count() == 0, errors.first.inner_text()
    hints = page.locator(".jp-OutputArea-output", has_text="no answer yet")
    assert hints.count() == len(teach.exercises(name[:2]))
    for index, canvas in enumerate(page.locator(".nglview-widget, .jp-OutputArea canvas").all()):
        canvas.scroll_into_view_if_needed()
        page.wait_for_timeout(3000)  # WebGL in software takes its time
        picture = canvas.screenshot(path=SHOTS / f"{name}_view{index}.png")
        pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).reshape(-1, 3)
        assert len(np.unique(pixels, axis=0)) > 50, "the 3D view is blank"
    if name.startswith("02"):
        _move_slider(page)
    if name.startswith("01"):
        assert page.locator(".jp-OutputArea canvas").count() >= 1, "no 3D view was drawn"
