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
from contextlib import contextmanager
from pathlib import Path

import nbformat
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
WITHOUT_WEBGL = ["--disable-gpu", "--disable-3d-apis", "--disable-webgl", "--disable-webgl2"]
CELL_SECONDS = 240
# A notebook of one cell, beside the students'.
ONE_VIEW = """import numpy as np
from defectkit.graphs.build import GraphConfig, build_graph
from defectkit.structures.defects import find_sites, make_defect
from defectkit.structures.hosts import HOSTS
from defectkit.widgets import StructureView
unit = HOSTS["MoS2"].unit_cell()
site = next(site for site in find_sites(unit) if site.name == "vac1")
atoms = make_defect(unit, (3, 3, 1), site, "").atoms
graph = build_graph(atoms, GraphConfig(angle_cutoff=None), unit)
StructureView(graph, np.arange(len(graph.z)), "a number")
"""
# How many code cells there are, how many have run, whether one has failed, which one is at work.
STATE = """() => {
    const cells = [...document.querySelectorAll(".jp-CodeCell")];
    const prompt = cell => cell.querySelector(".jp-InputPrompt").innerText;
    return {
        cells: cells.length,
        ended: cells.filter(cell => /\\[\\d+\\]/.test(prompt(cell))).length,
        failed: !!document.querySelector('[data-mime-type*="error"]'),
        at_work: cells.find(cell => /\\[\\*\\]/.test(prompt(cell)))?.innerText,
    };
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
    cells = [nbformat.v4.new_code_cell(ONE_VIEW)]
    one_view = nbformat.v4.new_notebook(cells=cells, metadata=notebooks.METADATA)
    nbformat.write(one_view, work / "notebooks" / "one_view.ipynb")
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
def playwright():
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "continuous integration must have chromium"
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="module")
def page(playwright, tmp_path_factory):
    with _browser(playwright, tmp_path_factory.mktemp("profile")) as page:
        yield page


@contextmanager
def _browser(playwright, profile: Path, *arguments: str):
    context = playwright.chromium.launch_persistent_context(
        profile,
        executable_path=CHROMIUM,
        args=[*ARGUMENTS, *arguments],
        viewport={"width": 1300, "height": 1000},
    )
    yield context.pages[0]
    context.close()


def _open(page, address: str) -> None:
    """A notebook whose kernel is there."""
    page.goto(address, wait_until="domcontentloaded")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=60_000)
    page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]').wait_for(timeout=60_000)
    SHOTS.mkdir(parents=True, exist_ok=True)


def _run_all(page) -> None:
    """Run every cell; ask again if JupyterLab, told before its kernel answered, has forgotten."""
    ended, deadline = 0, time.monotonic() + CELL_SECONDS
    while not ((state := page.evaluate(STATE))["failed"] or 0 < state["cells"] == state["ended"]):
        if state["ended"] > ended:
            ended, deadline = state["ended"], time.monotonic() + CELL_SECONDS
        assert time.monotonic() < deadline, f"this cell does not come to an end: {state}"
        if state["at_work"] is None:
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
    _wait_for_another(picture, before, SHOTS / "cutoff_after.png")


def _choose_head(page) -> None:
    """The explorer of notebook 06 shows another picture and other colours for another head."""
    explorer = page.locator(".jp-OutputArea-output", has=page.get_by_text("head", exact=True))
    picture, view = explorer.locator("img.widget-image").last, explorer.locator("canvas").first
    control = explorer.locator(".widget-dropdown", has_text="head").locator("select")
    view.scroll_into_view_if_needed()
    page.wait_for_timeout(2000)
    before = view.screenshot(path=SHOTS / "head_before_3d.png")
    flat = picture.screenshot(path=SHOTS / "head_before.png")
    control.select_option(label="0")
    _wait_for_another(picture, flat, SHOTS / "head_after.png")
    view.scroll_into_view_if_needed()
    _wait_for_another(view, before, SHOTS / "head_after_3d.png")


def _wait_for_another(element, before: bytes, path: Path) -> None:
    deadline = time.monotonic() + 20
    while element.screenshot(path=path) == before:
        assert time.monotonic() < deadline, "the picture does not follow the control"
        element.page.wait_for_timeout(300)


@pytest.mark.parametrize("name", [source.stem for source in notebooks.sources()])
def test_notebook_runs_in_jupyterlab_without_errors(page, lab, name):
    _open(page, lab(name))
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
    if name.startswith("06"):
        _choose_head(page)
    if name.startswith(("01", "06")):
        assert page.locator(".jp-OutputArea canvas").count() >= 1, "no 3D view was drawn"


def test_without_webgl_the_picture_stays(playwright, lab, tmp_path):
    with _browser(playwright, tmp_path, *WITHOUT_WEBGL) as page:
        _open(page, lab("one_view"))
        _run_all(page)
        assert page.locator('[data-mime-type*="error"]').count() == 0
        picture = page.locator(".jp-OutputArea img.widget-image")
        picture.wait_for(timeout=20_000)
        page.wait_for_timeout(3000)  # would a view come, it would hide the picture
        page.screenshot(path=SHOTS / "without_webgl.png")
        assert picture.is_visible()
        shown = page.evaluate("() => !!document.createElement('canvas').getContext('webgl')")
        assert not shown, "this browser has WebGL after all"


def test_with_webgl_the_view_takes_the_place_of_the_picture(page, lab):
    _open(page, lab("one_view"))
    _run_all(page)
    page.locator(".jp-OutputArea canvas").wait_for(timeout=20_000)
    page.locator(".jp-OutputArea img.widget-image").wait_for(state="hidden", timeout=20_000)
    page.screenshot(path=SHOTS / "with_webgl.png")
