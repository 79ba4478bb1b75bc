"""What a page for lectures shows: the app that its link names, set as the link says."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlencode

import ipywidgets
import matplotlib.pyplot as plt

from defectkit import DefectkitError
from defectkit.data.readers import demo_rows
from defectkit.data.sources import fetch
from defectkit.explain import node_table
from defectkit.graphs.build import build_graph
from defectkit.structures.names import in_html
from defectkit.teach.lecture import PAGES
from defectkit.training.inference import load_model
from defectkit.training.pretrained import benchmark, shipped_run
from defectkit.widgets.attention import AttentionExplorer
from defectkit.widgets.concepts import (
    LOOK,
    SHARP,
    SIZE,
    AttentionChain,
    Intervals,
    LeakageTrap,
    MinimumImage,
    ReceptiveField,
)
from defectkit.widgets.picture import LINE, ROW, Pictured
from defectkit.widgets.upload import UploadView

HOME = "../../"  # from a page to the start page
ABOVE, SOLID = "from above", "in 3D"
BESIDES = "calc(100vh - 18em)"  # height of the 3D view, beside all else on the screen


class WhoListens(AttentionExplorer):
    """The attention explorer on one screen: pictures, or in their place the 3D view.

    Args:
        row: a row of the demo data beside those that are there, one of each type of defect.

    Attributes:
        controls: by the names that links give them.
        view: whether the structure is shown from above or in 3D.
        sentence: what is seen.

    Raises DefectkitError where there is no such row.
    """

    SHEET: ClassVar[dict[str, Any]] = {
        "size": SIZE,
        "widths": (1.2, 1),
        "barred": 1,
        "edges": (0.07, 0.985, 0.13, 0.97, 0.2),
        "dpi": SHARP,
    }

    def __init__(self, row: str = "") -> None:
        model, card = load_model(shipped_run("hybrid").folder)
        uids = list(benchmark("attention").groupby("defecttype").uid.first()[::-1])
        data = demo_rows(fetch("demo"), list(dict.fromkeys([*uids, *filter(None, [row])])))
        self.kinds = data.frame.defecttype
        graphs = [build_graph(one, card.graph, data.hosts[one.host]) for one in data.records]
        self.view = ipywidgets.ToggleButtons(options=[ABOVE, SOLID])
        self.view.style.button_width = "7.5em"
        self.sentence = ipywidgets.HTML(layout=LINE)
        with plt.rc_context(LOOK):
            super().__init__(model, graphs, size=BESIDES)
        self.controls = {
            "row": self.structure,
            "layer": self.layer,
            "head": self.head,
            "asks": self.query,
            "view": self.view,
        }
        for control in (self.structure, self.layer, self.head, self.query):
            control.layout.width = "14.5em"
        self.view.observe(lambda change: self._arrange(), names="value")
        self._arrange()

    def _arrange(self) -> None:
        solid = self.view.value == SOLID and self.crystal.view is not None
        controls = ipywidgets.HBox(list(self.controls.values()), layout=ROW)
        self.children = [controls, self.sentence, self.place if solid else self.picture]

    def _show(self) -> None:
        with plt.rc_context(LOOK):
            super()._show()
        if self._quiet:
            return
        table, most = node_table(self.graph), int(self.weights.argmax())
        where = f"{table.distance[most]:.1f} Å from the defect"
        if table.defect[most]:
            where = "a node of the defect itself"
        uid, asked = self.structure.value, dict(map(reversed, self.query.options))
        self.sentence.value = (
            f"In {in_html(uid)} ({in_html(self.kinds[uid])}), asked by "
            f"{asked[self.query.value]}, node {most} ({table.symbol[most]}) has most weight: "
            f"<b>{self.weights[most]:.1f} times</b> that of uniform attention, "
            f"{where}. Mind notebook 06: in this model, attention is not explanation."
        )


APPS: Mapping[str, Callable[..., Pictured]] = {
    "minimum-image": MinimumImage,
    "cutoff": ReceptiveField,
    "chain": AttentionChain,
    "intervals": Intervals,
    "leakage": LeakageTrap,
    "attention": WhoListens,
    "upload": UploadView,
}


def page(query: str) -> ipywidgets.VBox:
    """What stands on the page of a link.

    Args:
        query: of the link, such as "app=chain&place=3.5": the name of an app, and values of its
            controls. What is wrong in it is told in a sentence.
    """
    asked = dict(parse_qsl(query, keep_blank_values=True))
    name = asked.pop("app", "")
    try:
        if name not in APPS:
            raise DefectkitError(
                f"No page is called '{name}'; there are {', '.join(APPS)}, as in ?app=chain."
            )
        row = {"row": asked["row"]} if name == "attention" and "row" in asked else {}
        app = APPS[name](**row)
        preset(app, asked)
    except DefectkitError as error:
        head = _head("There is no such page", "")
        return _framed(head, ipywidgets.HTML(in_html(error)))
    head = _head(PAGES[name][0], link(name, app))
    for control in getattr(app, "controls", {}).values():
        control.observe(partial(_relink, head, name, app), names="value")
    framed = _framed(head, app)
    if hasattr(app, "sentence"):
        app.sentence.add_class("defectkit-sentence")
    else:
        framed.add_class("defectkit-long")  # an answer takes the room that it needs
    return framed


def preset(app: Pictured, values: Mapping[str, str]) -> None:
    """Set controls of an app from the words of a link.

    Raises DefectkitError for a control that is not there, and a value that it cannot take.
    """
    controls = getattr(app, "controls", {})
    for name in values:
        if name not in controls:
            raise DefectkitError(
                f"This page has no control '{name}'; there are {', '.join(controls) or 'none'}."
            )
    for name, control in controls.items():  # in their order: some decide what others offer
        if name in values:
            _set(name, control, values[name])


def _set(name: str, control: ipywidgets.Widget, words: str) -> None:
    if hasattr(control, "options"):
        labels = _labels(control)
        if words not in labels:
            raise DefectkitError(f"{name} cannot be '{words}'; choose from {', '.join(labels)}.")
        control.index = labels.index(words)
        return
    try:
        value = type(control.value)(words)
    except ValueError:
        value = float("nan")
    if not control.min <= value <= control.max:
        raise DefectkitError(
            f"{name} cannot be '{words}'; choose a number from {control.min:g} to {control.max:g}."
        )
    control.value = value


def _labels(control: ipywidgets.Widget) -> list[str]:
    return [str(one[0] if isinstance(one, tuple) else one) for one in control.options]


def link(name: str, app: Pictured) -> str:
    """The link that shows an app as it is now."""
    said = {"app": name}
    for key, control in getattr(app, "controls", {}).items():
        chosen = hasattr(control, "options")
        said[key] = _labels(control)[control.index] if chosen else f"{control.value:g}"
    return f"?{urlencode(said)}"


def _relink(head: ipywidgets.HTML, name: str, app: Pictured, change: object) -> None:
    head.value = _head(PAGES[name][0], link(name, app)).value


def _head(title: str, address: str) -> ipywidgets.HTML:
    here = f'<a href="{in_html(address)}">link to this view</a>' if address else ""
    words = f'<h1>{in_html(title)}</h1>{here}<a href="{HOME}">all pages</a>'
    head = ipywidgets.HTML(words)
    head.add_class("defectkit-head")
    return head


def _framed(head: ipywidgets.HTML, body: ipywidgets.Widget) -> ipywidgets.VBox:
    body.add_class("defectkit-body")
    framed = ipywidgets.VBox([head, body])
    framed.add_class("defectkit-page")
    return framed
