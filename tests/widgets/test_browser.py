"""The students' notebooks in a real JupyterLab and a real browser.

They must run through, unanswered as they are, and draw what they should; and what a student has
saved must show its pictures where no kernel answers. Pages must need no network.
Screenshots are kept in build/browser/. Where chromium is missing the tests are skipped, but not in
continuous integration, where they must run.
"""

import io
import itertools
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from ase.io import write
from page_rules import assert_site_stands_alone
from PIL import Image

from defectkit.graphs import GraphConfig, build_graph
from defectkit.structures.defects import find_sites, make_defect
from defectkit.structures.hosts import HOSTS
from defectkit.teach import lecture, notebooks, site
from defectkit.widgets import structure

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "build" / "browser"
CHROMIUM = shutil.which("chromium")
ARGUMENTS = """--headless=new --no-sandbox --disable-quic --no-first-run --disable-sync
    --disable-background-networking --disable-component-update""".split()
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
ATOMS = """import numpy as np
from defectkit.graphs.build import GraphConfig, build_graph
from defectkit.structures.defects import find_sites, make_defect
from defectkit.structures.hosts import HOSTS
unit = HOSTS["MoS2"].unit_cell()
site = next(site for site in find_sites(unit) if site.name == "vac1")
atoms = make_defect(unit, (3, 3, 1), site, "").atoms
graph = build_graph(atoms, GraphConfig(cutoff=6.0, angle_cutoff=None), unit)
values = np.zeros(len(graph.z))
metal = np.flatnonzero(graph.z == 42)
values[[26, metal[4], metal[8]]] = 1.0, 0.7, 0.4
"""
# Notebooks beside the students': one view; several widgets; rows that a browser may choke on.
OWN = {
    "one_view": [
        ATOMS
        + """from defectkit.widgets import StructureView
StructureView(graph, values, "a number", limits=(0, 1))
"""
    ],
    "saved": [
        ATOMS
        + """import sys, time, tqdm
import matplotlib.pyplot as plt
from defectkit import plots
from defectkit.widgets import CutoffExplorer, StructureView, view_defect
for _ in tqdm.tqdm(range(3), leave=False):
    time.sleep(0.2)
StructureView(graph, values, "a number")
""",
        "view_defect(atoms, [3])",
        "CutoffExplorer(graph, 3, 6.0)",
        "plots.database.route();",
    ],
    "odd_rows": [
        ATOMS
        + """from defectkit.data import Dataset
from defectkit.models import build_model
from defectkit.structures.record import DefectRecord
from defectkit.widgets import AttentionExplorer, DatabaseBrowser, HeadGallery
def row(name, **fields):
    return DefectRecord(uid=name, name=name, atoms=atoms, host="MoS2", label_source="x", **fields)
names = ["<img src=x onerror='alert(1)'>", "$x^2$", "x" * 2000]
for name in names:
    data = Dataset("odd", "x", [row(name, site=name, defecttype="vacancy")], {"MoS2": unit})
    browser = DatabaseBrowser(data)
    browser.rows.value = name
    display(browser)
display(DatabaseBrowser(Dataset("none", "x", [], {})))
display(DatabaseBrowser(Dataset("one", "x", [row("one", eform=2.0)], {"MoS2": unit})))
""",
        """small = GraphConfig(cutoff=4.7, angle_cutoff=None)
graphs = [build_graph(row(name), small, unit) for name in names]
model = build_model("hybrid", small, {"hidden": 16, "heads": 4}).eval()
display(AttentionExplorer(model, graphs))
display(HeadGallery(model, graphs))
""",
    ],
}
OWN["sandbox"] = [
    """import torch
from defectkit.predict.answer import shipped_predictor
from defectkit.predict.own import host_cell
from defectkit.structures.defects import defects_of
from defectkit.widgets import Sandbox
torch.set_num_threads(1)
host = host_cell("MoS2")
Sandbox(defects_of(host, add="Cr")["ads1"].atoms, host, shipped_predictor("hybrid"))
"""
]
OWN["live"] = [
    """import torch
from defectkit.teach import checks
from defectkit.widgets import try_out
from defectkit.widgets.live import SCENES
torch.set_num_threads(1)
for number in SCENES:
    display(try_out(number, list(checks.find(number).mistakes.values())[1]))
""",
    """def stops(*given):
    raise KeyError("<img src=x onerror=alert(1)> $x^2$ " * 20)
try_out("02-1", stops)
""",
]
OWN["upload"] = [
    """import torch
from defectkit.widgets import UploadView
torch.set_num_threads(1)
UploadView()
"""
]
SCREENS = (1280, 800), (1920, 1080)
# Of what is to be seen: how far it reaches, elements that end outside, text that is too small.
ONE_SCREEN = """() => {
    const page = document.scrollingElement, cut = [], small = [], pictures = [];
    for (const element of document.body.querySelectorAll("*")) {
        const box = element.getBoundingClientRect();
        if (!box.width || !box.height || element.closest(".noUi-target, canvas, style")) continue;
        const text = [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
        if (element.tagName === "IMG") pictures.push(box.toJSON());
        const out = box.bottom > innerHeight || box.right > innerWidth;
        if (text && out) cut.push(element.outerHTML);
        const size = parseFloat(getComputedStyle(element).fontSize);
        if (text && size < 20 && element.tagName !== "SUP") small.push([size, element.outerHTML]);
    }
    return {height: page.scrollHeight, width: page.scrollWidth, cut, small, pictures};
}"""
CLIPPED = """() => [...document.querySelectorAll(".defectkit-page *")].filter(element =>
    element.scrollHeight > element.clientHeight + 4 && element.clientHeight
    && getComputedStyle(element).overflowY !== "visible"
    && !element.closest("select, canvas, .ui-resizable")
).map(element => element.outerHTML)"""
ALONE = """number => document.querySelectorAll("[cell-index]").forEach(cell => {
    const page = cell.querySelector(".defectkit-page");
    const all = [...document.querySelectorAll(".defectkit-page")];
    cell.style.display = page === all[number] ? "" : "none";
})"""
OWN["elements"] = [
    """from defectkit.evaluation.vectors import known_vectors
from defectkit.widgets import ElementMap
ElementMap(known_vectors("elemental").iloc[2:83], "S")
"""
]
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


@dataclass(frozen=True)
class Lab:
    """A JupyterLab of its own, with copies of the students' notebooks.

    Attributes:
        address: of the server.
        token: that it asks for.
        work: folder with notebooks and settings.
    """

    address: str
    token: str
    work: Path

    def __call__(self, name: str) -> str:
        """The address of a notebook."""
        return f"{self.address}/lab/tree/{name}.ipynb?token={self.token}&reset"

    def notebook(self, name: str) -> Path:
        return self.work / "notebooks" / f"{name}.ipynb"

    def asked(self, method: str, what: str) -> list | None:
        """What the server's own interface answers."""
        address = f"{self.address}/api/{what}?token={self.token}"
        with urllib.request.urlopen(
            urllib.request.Request(address, method=method), timeout=60
        ) as told:
            return json.loads(told.read() or "null")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    work = tmp_path_factory.mktemp("lab")
    shutil.copytree(notebooks.FOLDER, work / "notebooks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    lab = Lab(f"http://127.0.0.1:{port}", secrets.token_hex(8), work)
    for name, values in SETTINGS.items():
        path = work / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    for name, sources in OWN.items():
        cells = [nbformat.v4.new_code_cell(source) for source in sources]
        notebook = nbformat.v4.new_notebook(cells=cells, metadata=notebooks.METADATA)
        nbformat.write(notebook, lab.notebook(name))
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    command += [
        f"--ServerApp.port={port}",
        f"--IdentityProvider.token={lab.token}",
        f"--ServerApp.root_dir={work / 'notebooks'}",
        f"--LabApp.user_settings_dir={work / 'settings'}",
        f"--LabApp.workspaces_dir={work / 'workspaces'}",
    ]
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (work / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        _wait_for(f"{lab.address}/api?token={lab.token}", process, work / "log")
        yield lab
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture
def lab(server):
    """The server without a kernel; each has some hundred MB and takes time to shut down."""
    yield server
    for session in server.asked("GET", "sessions"):
        server.asked("DELETE", f"sessions/{session['id']}")


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
    idle = page.locator('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
    idle.wait_for(state="attached", timeout=60_000)  # a narrow window hides it
    SHOTS.mkdir(parents=True, exist_ok=True)


def _run_all(page) -> None:
    """Run every cell; ask again if JupyterLab, told before its kernel answered, has forgotten."""
    ended, deadline = 0, time.monotonic() + CELL_SECONDS
    while not ((state := page.evaluate(STATE))["failed"] or 0 < state["cells"] == state["ended"]):
        if state["ended"] > ended:
            ended, deadline = state["ended"], time.monotonic() + CELL_SECONDS
        assert time.monotonic() < deadline, f"this cell does not come to an end: {state}"
        if state["at_work"] is None:
            _close_dialog(page)
            page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
            page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()
        page.wait_for_timeout(2000)
    _close_dialog(page)  # it would hide what the cells show


def _close_dialog(page) -> None:
    """What JupyterLab says to one who asked too soon."""
    if (told := page.locator(".jp-Dialog button")).count():
        told.last.click()


def _move_slider(page, words: str, steps: int = 20, key: str = "ArrowRight") -> None:
    """The slider with these words changes the picture of its widget."""
    label = page.get_by_text(words, exact=True)
    widget = page.locator(".jp-OutputArea-output", has=label).first
    picture, name = widget.locator("img.widget-image").last, words.partition(" ")[0]
    picture.scroll_into_view_if_needed()
    before = picture.screenshot(path=SHOTS / f"{name}_before.png")
    handle = widget.locator(".widget-hslider", has=label).locator(".noUi-handle").first
    handle.focus()
    for _ in range(steps):
        handle.press(key)
    _wait_for_another(picture, before, SHOTS / f"{name}_after.png")


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


def test_a_click_on_an_element_lights_its_neighbours(page, lab):
    _open(page, lab("elements"))
    _run_all(page)
    assert page.locator('[data-mime-type*="error"]').count() == 0
    plot = page.locator(".jp-OutputArea img.widget-image").first
    plot.wait_for(timeout=60_000)
    before = plot.screenshot(path=SHOTS / "elements_before.png")
    buttons = {
        symbol: page.locator(f".jp-OutputArea button.jupyter-button:text-is('{symbol}')")
        for symbol in ("Li", "Na", "Nb", "Mo", "W")
    }
    boxes = {symbol: button.bounding_box() for symbol, button in buttons.items()}
    for above, below in (("Li", "Na"), ("Mo", "W")):
        assert boxes[above]["x"] == boxes[below]["x"]
        assert 0 < boxes[below]["y"] - boxes[above]["y"] < 40
    assert boxes["Nb"]["y"] == boxes["Mo"]["y"]
    assert 0 < boxes["Mo"]["x"] - boxes["Nb"]["x"] < 40
    buttons["Mo"].click()
    _wait_for_another(plot, before, SHOTS / "elements_after.png")
    page.get_by_text("nearest to Mo").wait_for(timeout=20_000)
    page.screenshot(path=SHOTS / "elements.png")


# Together they show every widget of the notebooks but ElementMap, try_out and view_defect, which
# have tests of their own; papermill runs all notebooks.
LIVELY = notebooks.sources(["00", "02", "03", "06", "08", "09"])


@pytest.mark.parametrize("source", LIVELY, ids=lambda source: source.stem)
def test_notebook_runs_in_jupyterlab_without_errors(page, lab, source):
    name = source.stem
    _open(page, lab(name))
    try:
        _run_all(page)
    finally:
        page.screenshot(path=SHOTS / f"{name}.png")
    errors = page.locator('[data-mime-type*="error"]')
    assert errors.count() == 0, errors.first.inner_text()
    # A plot of the student's own function says so as well, without a number.
    unanswered = re.compile(r"\d\d-\d+\s+no answer yet")
    hints = page.locator(".jp-OutputArea-output", has_text=unanswered)
    assert hints.count() == len(notebooks.asked(source))
    if name.startswith(("06", "09")):  # the 3D view comes after its cell has ended
        page.locator(".jp-OutputArea canvas").first.wait_for(timeout=30_000)
    for index, canvas in enumerate(page.locator(".nglview-widget, .jp-OutputArea canvas").all()):
        canvas.scroll_into_view_if_needed()
        page.wait_for_timeout(3000)  # WebGL in software takes its time
        picture = canvas.screenshot(path=SHOTS / f"{name}_view{index}.png")
        pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).reshape(-1, 3)
        assert len(np.unique(pixels, axis=0)) > 50, "the 3D view is blank"
    if name.startswith("02"):
        _move_slider(page, "cutoff (Å)")
    if name.startswith("06"):
        _choose_head(page)
    if name.startswith(("06", "09")):
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
    page.wait_for_timeout(3000)
    canvas = page.locator(".jp-OutputArea canvas").screenshot(path=SHOTS / "with_webgl.png")
    pixels = np.asarray(Image.open(io.BytesIO(canvas)).convert("RGB")).astype(int)
    unit = HOSTS["MoS2"].unit_cell()
    site = next(site for site in find_sites(unit) if site.name == "vac1")
    atoms = make_defect(unit, (3, 3, 1), site, "").atoms
    graph = build_graph(atoms, GraphConfig(angle_cutoff=None), unit)
    # Three nodes have colours of their own, which are those of the scale: no fog, no red veil.
    places = np.array([_place(pixels, value) for value in (1.0, 0.7, 0.4)])
    seen = (places[1:] - places[0]) * [1, -1]  # pixels are counted downwards
    metal = np.flatnonzero(graph.z == 42)[[4, 8]]
    wanted = (graph.pos[metal, :2] - graph.pos[26, :2]).numpy()
    scale = np.linalg.norm(seen) / np.linalg.norm(wanted)
    # From above, x to the right and y up, as in the picture.
    assert np.abs(seen / scale - wanted).max() < 0.35, "the view is turned or mirrored"


def _place(pixels: np.ndarray, value: float) -> np.ndarray:
    """Where, in pixels, the colour of a value between 0 and 1 is found."""
    bins = min(int(value * structure.BINS), structure.BINS - 1) + 0.5
    colour = np.array(plt.get_cmap("viridis")(bins / structure.BINS)[:3]) * 255
    found = np.argwhere(np.abs(pixels - colour).max(axis=-1) < 14)
    assert len(found) > 100, f"nothing has the colour of {value}"
    return np.median(found, axis=0)[::-1]


# What is seen of a notebook: pictures, errors of widgets, and parts that are wider than their cell.
LOOK = """() => {
    const seen = e => { const r = e.getBoundingClientRect(); return r.width > 0 && r.height > 0; };
    const all = query => [...document.querySelectorAll(".jp-OutputArea " + query)].filter(seen);
    const right = e => e.getBoundingClientRect().right;
    return {
        pictures: all("img").length,
        views: all("canvas").length,
        errors: all(".jp-OutputArea-child").filter(
            e => /Error displaying|Loading widget|javascript error/.test(e.innerText)).length,
        wide: all(".jp-OutputArea-output").filter(o => [...o.querySelectorAll(
            ":scope .jupyter-widgets")].some(e => right(e) > right(o) + 8)).length,
        strange: document.querySelectorAll(".jp-OutputArea [onerror]").length,
    };
}"""


def _look(page, pictures: int) -> dict:
    """What is seen when there are so many pictures, or after half a minute."""
    deadline = time.monotonic() + 30
    while (look := page.evaluate(LOOK))["pictures"] != pictures and time.monotonic() < deadline:
        page.wait_for_timeout(500)
    return look


def test_what_was_saved_shows_its_pictures_without_a_kernel(page, lab, tmp_path):
    _open(page, lab("saved"))
    _run_all(page)
    page.locator(".jp-OutputArea canvas").nth(1).wait_for(timeout=30_000)
    page.wait_for_timeout(3000)
    alive = _look(page, 2)
    page.screenshot(path=SHOTS / "saved_live.png")
    assert alive["errors"] == alive["wide"] == 0
    assert alive["views"] == 2
    assert alive["pictures"] == 2, "the pictures stand beside what lives"
    page.keyboard.press("Control+s")
    page.wait_for_timeout(2000)
    _choose(page, "Kernel", "Restart Kernel…")
    page.locator(".jp-Dialog button", has_text="Restart").last.click()
    page.wait_for_function(
        "() => document.querySelectorAll('.jp-OutputArea canvas').length == 0 ||"
        "[...document.querySelectorAll('.jp-OutputArea canvas')].every("
        "e => e.getBoundingClientRect().width == 0)"
    )
    assert _look(page, 4)["pictures"] == 4
    _choose(page, "Kernel", "Shut Down Kernel")
    page.wait_for_timeout(3000)
    assert page.evaluate(LOOK)["pictures"] == 4
    for kernel in (False, True):
        if not kernel:
            page.route("**/api/sessions**", lambda route: route.abort())
        page.goto(lab("saved"), wait_until="domcontentloaded")
        page.locator(".jp-OutputArea img").nth(3).wait_for(timeout=60_000)
        page.wait_for_timeout(5000)  # would an error come, it would be here
        page.unroute("**/api/sessions**")
        page.screenshot(path=SHOTS / f"saved_{'new' if kernel else 'no'}_kernel.png")
        look = page.evaluate(LOOK)
        assert (look["pictures"], look["errors"]) == (4, 0)
    _assert_the_page_needs_nothing(page, lab.notebook("saved"), tmp_path)


def _choose(page, menu: str, item: str) -> None:
    page.locator(".lm-MenuBar-itemLabel", has_text=menu).first.click()
    page.locator(".lm-Menu-itemLabel", has_text=item).first.click()


def _assert_the_page_needs_nothing(page, notebook: Path, folder: Path) -> None:
    """A site of the saved notebook and one with many formulas, opened without a network."""
    shutil.copy(notebook, folder)
    formulas = next(source for source in notebooks.sources(["04"]))
    (folder / f"{formulas.stem}.ipynb").write_text(notebooks.as_text(notebooks.solved(formulas)))
    site.build([], folder, root=folder)
    assert_site_stands_alone(folder)
    names = (notebook.stem, formulas.stem)
    asked, page = [], page.context.new_page()  # JupyterLab's own goes on asking
    page.on("request", lambda request: asked.append(request.url))
    page.context.set_offline(True)
    try:
        for name, wide in itertools.product(names, (390, 1300)):  # the formulas come last
            page.set_viewport_size({"width": wide, "height": 900})
            page.goto((folder / f"{name}.html").as_uri())
            page.wait_for_timeout(500)
            page.screenshot(path=SHOTS / f"page_{name}_{wide}.png")
            text = page.locator("body").inner_text()
            assert "Error displaying widget" not in text
            over = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
            assert over <= 0, "the page is wider than its window"
        parts = "[...formula.querySelectorAll('*')]"  # an index may lie outside its formula
        height = f"Math.max(...{parts}.map(part => part.getBoundingClientRect().height))"
        heights = page.evaluate(
            f"() => [...document.querySelectorAll('math')].map(formula => {height})"
        )
        assert len(heights) > 40
        assert min(heights) > 2, "a formula is not drawn"
        page.goto(f"{(folder / 'search.html').as_uri()}?q=attention")
        page.locator("#search-results li").first.wait_for()
    finally:
        page.context.set_offline(False)
        page.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


@contextmanager
def _dialogs(page):
    """The messages of dialogs that open meanwhile; those about leaving the page are none."""
    messages = []

    def close(dialog) -> None:
        if dialog.type == "beforeunload":
            dialog.accept()
        else:
            messages.append(dialog.message)
            dialog.dismiss()

    page.on("dialog", close)
    yield messages
    page.remove_listener("dialog", close)


def test_odd_rows_and_names_do_no_harm(page, lab):
    page.set_viewport_size({"width": 1050, "height": 1000})
    try:
        with _dialogs(page) as dialogs:
            _open(page, lab("odd_rows"))
            _run_all(page)
            page.locator(".jp-OutputArea canvas").first.wait_for(timeout=60_000)
            page.wait_for_timeout(5000)
            page.screenshot(path=SHOTS / "odd_rows.png")
            look = page.evaluate(LOOK)
    finally:
        page.set_viewport_size({"width": 1300, "height": 1000})
    assert page.locator('[data-mime-type*="error"]').count() == 0
    assert dialogs == []
    assert (look["errors"], look["wide"], look["strange"]) == (0, 0, 0)


def test_a_slider_moves_an_atom_and_a_relaxation_can_be_stopped(page, lab):
    _open(page, lab("sandbox"))
    _run_all(page)
    picture = page.locator(".jp-OutputArea img.widget-image")
    picture.wait_for(timeout=30_000)
    before = picture.screenshot(path=SHOTS / "sandbox_start.png")
    handle = page.locator(".jp-OutputArea .widget-hslider .noUi-handle").nth(2)
    handle.focus()
    for _ in range(6):
        handle.press("ArrowRight")
    page.get_by_text("27 Cr by 0.30 Å").wait_for(timeout=20_000)
    _wait_for_another(picture, before, SHOTS / "sandbox_moved.png")
    page.get_by_role("button", name="Relax").click()
    stop = page.get_by_role("button", name="Stop")
    stop.wait_for(timeout=10_000)
    page.wait_for_timeout(1500)
    page.screenshot(path=SHOTS / "sandbox_relaxing.png")
    stop.click()
    page.get_by_role("button", name="Relax").wait_for(timeout=10_000)
    page.wait_for_timeout(500)
    page.screenshot(path=SHOTS / "sandbox.png")
    page.get_by_role("button", name="Back to the start").click()
    page.get_by_text("No atom moved by more than").wait_for(timeout=10_000)
    look = page.evaluate(LOOK)
    assert (look["errors"], look["wide"]) == (0, 0)


def test_a_students_function_follows_the_sliders(page, lab):
    _open(page, lab("live"))
    with _dialogs(page) as dialogs:
        _run_all(page)
        page.locator(".jp-OutputArea img.widget-image").nth(4).wait_for(timeout=30_000)
        for words in ("j along b", "neighbours k", "φ: halvings per Å", "rows that are known"):
            _move_slider(page, words, 2)
        page.screenshot(path=SHOTS / "live.png", full_page=True)
        page.get_by_text("Your function stopped with KeyError").first.scroll_into_view_if_needed()
        page.screenshot(path=SHOTS / "live_fault.png")
    look = page.evaluate(LOOK)
    assert dialogs == []
    assert (look["errors"], look["wide"], look["strange"]) == (0, 0, 0)


HOSTILE = "<img src=x onerror=alert(1)>.xyz"


def _files(folder: Path) -> dict[str, Path]:
    """A structure whose name is markup, one that is none, and one that is too large."""
    unit = HOSTS["MoS2"].unit_cell()
    site = next(site for site in find_sites(unit) if site.name == "vac1")
    files = {"fine": folder / HOSTILE, "bad": folder / "bad.cif", "large": folder / "large.cif"}
    write(files["fine"], make_defect(unit, (3, 3, 1), site, "").atoms, format="extxyz")
    files["bad"].write_text("no crystal")
    files["large"].write_text("x" * 12_000_000)
    return files


def _drop(page, path: Path) -> None:
    """Let a file fall on the field, as the browser itself does."""
    field = page.locator("input[type=file]")
    field.scroll_into_view_if_needed()
    box = field.bounding_box()
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    dragged = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": dragged})
    session.detach()


def test_a_dropped_file_is_answered_and_its_name_is_text(page, lab, tmp_path):
    files = _files(tmp_path)
    _open(page, lab("upload"))
    _run_all(page)
    page.locator("input[type=file]").wait_for(timeout=30_000)
    with _dialogs(page) as dialogs:
        _drop(page, files["large"])
        page.get_by_text("large.cif is larger than 5 MB, the most that is read.").wait_for()
        _drop(page, files["fine"])
        page.get_by_text("Formation energy").first.wait_for(timeout=60_000)
        assert page.get_by_text(f"{HOSTILE}: S vacancy in MoS2, unrelaxed").count() == 1
        assert page.get_by_text("CHGNet-0.3.0").count() >= 1
        page.locator(".jp-OutputArea canvas").wait_for(timeout=30_000)
        page.locator(".jp-OutputArea img.widget-image").last.wait_for(timeout=30_000)
        page.wait_for_timeout(3000)  # WebGL in software takes its time
        look = page.evaluate(LOOK)
    page.screenshot(path=SHOTS / "upload.png")
    assert (look["errors"], look["wide"], look["strange"], dialogs) == (0, 0, 0, [])
    page.get_by_role("button", name="Pull at its atoms").click()
    page.get_by_text("This is no force field.").wait_for(timeout=30_000)
    page.wait_for_timeout(1000)
    page.screenshot(path=SHOTS / "upload_sandbox.png")
    _drop(page, files["bad"])
    page.get_by_text("bad.cif is not a readable cif file").wait_for(timeout=20_000)
    assert page.locator(".jp-OutputArea canvas").count() == 0, "the last structure is still there"


def _wait_for_port(port: int, server: subprocess.Popen) -> None:
    """Until somebody listens there; to ask Voila for a page would start a kernel."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    pytest.fail("Voila did not start")


@contextmanager
def _served(path: Path, folder: Path):
    """The address of pages for lectures, and what they ask of other hosts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command, given = lecture.command(path, port), lecture.environment(path)
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=given)
    try:
        _wait_for_port(port, server)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(timeout=30)


@contextmanager
def _asked_elsewhere(page, own: str):
    """What a page asks of other hosts than its own."""
    asked = []

    def note(request) -> None:
        if not request.url.startswith((own, "data:", "blob:")):
            asked.append(request.url)

    page.goto("about:blank")  # else what an earlier test left open goes on asking
    page.on("request", note)
    yield asked
    page.remove_listener("request", note)


def _assert_one_screen(page, name: str, sizes: Sequence[tuple[int, int]] = SCREENS) -> None:
    """No scroll bars, nothing cut off, all text large, a picture inside; screenshots stay."""
    for width, height in sizes:
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(300)
        page.screenshot(path=SHOTS / f"{name}_{width}.png")
        look = page.evaluate(ONE_SCREEN)
        assert look["height"] <= height, f"{name} scrolls at {width} x {height}"
        assert look["width"] <= width, f"{name} scrolls sideways at {width} x {height}"
        assert look["cut"] == [], f"cut off at {width} x {height}"
        assert look["small"] == [], "text under 20 pixels"
        assert page.evaluate(CLIPPED) == []
        for box in look["pictures"]:
            assert box["bottom"] <= height
            assert box["width"] > 0.6 * width or box["height"] > 0.5 * height, "a small picture"


def test_the_start_page_leads_to_files_that_are_answered(page, tmp_path):
    SHOTS.mkdir(parents=True, exist_ok=True)
    (tmp_path / "files").mkdir()
    files = _files(tmp_path / "files")
    with (
        _served(lecture.write(tmp_path / "page"), tmp_path) as address,
        _asked_elsewhere(page, address) as elsewhere,
    ):
        page.goto(address)
        for title, _ in lecture.PAGES.values():
            assert page.get_by_text(title, exact=True).count() == 1
        _assert_one_screen(page, "start")
        page.get_by_role("link", name="Your own structure").click()
        page.locator("input[type=file]").last.wait_for(timeout=180_000)
        _drop(page, files["fine"])
        page.get_by_text("Formation energy").first.wait_for(timeout=60_000)
        assert page.get_by_text(f"{HOSTILE}: S vacancy in MoS2, unrelaxed").count() == 1
        page.locator("canvas").first.wait_for(timeout=60_000)
        page.wait_for_timeout(4000)
        page.screenshot(path=SHOTS / "lecture_answer.png")
        page.get_by_text("labels of DFT-PBE").wait_for()
        assert page.evaluate(CLIPPED) == []
        assert page.locator("[onerror]").count() == 0
        told = "() => [...document.querySelectorAll('select')].map(s => s.selectedOptions.length)"
        assert set(page.evaluate(told)) == {1}, "a dropdown shows none of its options"
        page.get_by_role("link", name="all pages").click()
        page.get_by_text("One concept a page").wait_for()
    assert elsewhere == []


def test_every_page_for_lectures_is_one_screen_and_follows_its_controls(page, tmp_path):
    """All in one kernel, which takes longer to start than a page to draw."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    names = [name for name in lecture.PAGES if name != "upload"]
    path = lecture.write(tmp_path / "page")
    code = [lecture.CODE[0], *(f"page('app={name}')" for name in names)]
    cells = [nbformat.v4.new_code_cell(source) for source in code]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=notebooks.METADATA), path)
    with _served(path, tmp_path) as address, _asked_elsewhere(page, address) as elsewhere:
        page.goto(f"{address}voila/render/{path.name}", timeout=180_000)
        page.locator(".defectkit-page img.widget-image").nth(len(names) - 1).wait_for(
            state="attached", timeout=180_000
        )
        for number, name in enumerate(names):
            page.evaluate(ALONE, number)
            shown = page.locator(".defectkit-page").nth(number)
            picture = shown.locator("img.widget-image")
            _assert_one_screen(page, name)
            link = shown.get_by_role("link", name="link to this view")
            before, address_before = picture.screenshot(), link.get_attribute("href")
            if name == "attention":
                shown.locator("select").nth(2).select_option(label="0")
            else:
                shown.locator(".noUi-handle").first.press("ArrowLeft")
            _wait_for_another(picture, before, SHOTS / f"{name}_moved.png")
            assert link.get_attribute("href") != address_before
        for size in SCREENS:
            page.set_viewport_size({"width": size[0], "height": size[1]})
            shown.get_by_role("button", name="in 3D").click()
            shown.locator("canvas").wait_for(timeout=30_000)
            page.wait_for_timeout(3000)
            _assert_one_screen(page, "attention_3d", [size])
            shown.get_by_role("button", name="from above").click()
            picture.wait_for()
    assert elsewhere == []
