"""A file of one's own: dropped on the page, read in memory, predicted, and drawn."""

from html import escape

import ipywidgets
import matplotlib.pyplot as plt
import pandas as pd

from defectkit import DefectkitError
from defectkit.graphs.build import POSITIONS
from defectkit.plots.explain import looked_at, score_maps
from defectkit.predict.answer import (
    RELAXED,
    all_atom_predictor,
    ask,
    read,
    shipped_predictor,
)
from defectkit.predict.own import Own, training_hosts
from defectkit.predict.predictor import UNREAD
from defectkit.structures.files import structure_in
from defectkit.structures.names import in_figure, in_html, one_line
from defectkit.widgets.picture import LINE, ROW, Pictured
from defectkit.widgets.sandbox import Sandbox
from defectkit.widgets.structure import StructureView

MOST_BYTES = 5_000_000  # of a file, and of what is packed in it
CONFIDENCE = 0.9  # of the intervals
MAPS = (9.5, 4.4)  # inches of the picture
UNSAID = ""  # a choice of nothing; a dropdown whose value is None shows none of its options
PLACE = "defectkit-upload"  # class of the widget, by which the script below finds its parts
# A file field of HTML takes files that are dropped on it, which the upload button of ipywidgets
# does not. It hands them to that button, which is hidden: the button opens a field of its own by
# `click`, and gets our files in its place. What is too large is refused before it is sent: more
# than 10 MB would cut the connection to the kernel.
SCRIPT = f"""
const told = this.nextElementSibling, files = this.files;
told.textContent = '';
if (!files.length) return;
if (files[0].size > {MOST_BYTES}) {{
  told.textContent = files[0].name + ' is larger than {MOST_BYTES // 1_000_000} MB, the most that '
    + 'is read.';
  return;
}}
const button = this.closest('.{PLACE}').querySelector('button.widget-upload');
const click = HTMLInputElement.prototype.click;
HTMLInputElement.prototype.click = function () {{
  this.files = files;
  this.dispatchEvent(new Event('change'));
}};
try {{ button.click(); }} finally {{ HTMLInputElement.prototype.click = click; }}
"""
FIELD = f"""<label style="display: block; line-height: 1.4">Drop a CIF, POSCAR, xyz or extxyz
file here, or choose one (at most {MOST_BYTES // 1_000_000} MB and 2,000 atoms; it is not stored):
<input type="file" onclick="this.value = ''" onchange="{escape(SCRIPT)}"
style="display: block; box-sizing: border-box; width: 100%; margin-top: 0.4em; padding: 1.6em 1em;
border: 2px dashed #999; border-radius: 6px"><span role="status"></span></label>"""


class UploadView(Pictured):
    """Drop a file: see the structure, what the shipped networks say of it, and why.

    Files are read in memory and leave nothing on the disk. Their names and what stands in them are
    shown as text. A file that cannot be read gets one sentence.

    Attributes:
        file: the upload; its `value` is what ipywidgets' `FileUpload` holds.
        host: a dropdown of pristine hosts, `UNSAID` where it is to be found.
        positions: a dropdown of `graphs.build.POSITIONS`, `UNSAID` where they are to be told.
        answer: defect, energies with intervals, verdicts and label sources, or why there are none.
        crystal: the `StructureView` of the structure, coloured by what was looked at, or None.
        pull: a button that opens a `Sandbox` with the structure.
        picture: what was looked at (`plots.explain.looked_at`).
    """

    def __init__(self) -> None:
        super().__init__()
        self.file = ipywidgets.FileUpload(layout={"display": "none"})
        names = sorted(training_hosts("2dmd") | training_hosts("demo"))
        self.host = _choice("host", {"found from the structure": UNSAID} | {n: n for n in names})
        states = {"told from the atoms": UNSAID} | {n: n for n in POSITIONS}
        self.positions = _choice("positions", states)
        self.answer = ipywidgets.HTML(layout=LINE)
        self.pull = ipywidgets.Button(description="Pull at its atoms", icon="arrows-alt")
        self.place = ipywidgets.VBox()  # as wide as the page, which a Box is not
        self.crystal, self._own = None, None
        for control in (self.file, self.host, self.positions):
            control.observe(lambda change: self._show(), names="value")
        self.pull.on_click(lambda button: self._open_sandbox())
        self.add_class(PLACE)
        self.children = [
            ipywidgets.HTML(FIELD, layout={"width": "100%", "max_width": "700px"}),
            self.file,
            ipywidgets.HBox([self.host, self.positions], layout=ROW),
            self.answer,
            self.place,
        ]

    def _show(self) -> None:
        """Read, predict and draw the file that was dropped; the answer stands before the maps."""
        self.crystal, self.place.children, self.picture.value, self.alt = None, [], b"", ""
        if not self.file.value:
            return
        given = self.file.value[0]
        name = one_line(given["name"])
        self.answer.value = f"Reading {in_html(name)} …"
        try:
            atoms = structure_in(bytes(given["content"]), name, MOST_BYTES)
            relaxed = self.positions.value == POSITIONS[0] if self.positions.value else None
            (self._own,) = read({name: atoms}, self.host.value or None, relaxed)
            if self._own.fault:
                raise DefectkitError(self._own.fault)
            table = ask([self._own], CONFIDENCE)
            self.answer.value = _told(name, table)
            if (table.verdict != UNREAD).any():
                self._draw(self._own)
        except DefectkitError as error:
            self.answer.value = in_html(error)

    def _draw(self, one: Own) -> None:
        predictor = all_atom_predictor(one)
        model, graph = predictor.networks[0], predictor.graph_of(one)
        scores = looked_at(model, graph)
        label, values = next(iter(scores.items()))
        self.crystal = StructureView(graph, values, label, flat=False)
        self.place.children = [self.crystal, self.pull]
        figure = score_maps(graph, scores)[0].figure
        figure.suptitle(in_figure(f"{one.defect} in {one.record.host}"))
        plt.close(figure)  # else a notebook would show it once more
        figure.set_size_inches(MAPS)
        figure.draw_without_rendering()  # of another size, its layout takes two turns
        self.paint(figure)
        self.place.children = [self.crystal, self.picture, self.pull]

    def _open_sandbox(self) -> None:
        """Let the atoms be moved, by networks that learned from relaxed structures."""
        one = self._own
        box = Sandbox(one.record.atoms, one.host, shipped_predictor(RELAXED))
        self.place.children = [self.crystal, self.picture, box]


def _choice(name: str, options: dict[str, str]) -> ipywidgets.Dropdown:
    return ipywidgets.Dropdown(options=list(options.items()), description=name)


def _told(name: str, table: pd.DataFrame) -> str:
    """The rows of one structure as HTML, a paragraph a network."""
    first = table.iloc[0]
    parts = [f"<b>{in_html(name)}</b>"]
    if first.defect:
        parts[0] += f": {in_html(first.defect)} in {in_html(first.host)}, {in_html(first.input)}"
    if first.assumed:
        parts.append(f"Assumed: {in_html(first.assumed)}")
    for row in table.itertuples():
        if row.verdict == UNREAD:
            parts.append(in_html(row.sentence))
            continue
        moment = "" if pd.isna(row.spin) else f", moment {row.spin:.2f} μB"
        lines = [
            f"<b>Formation energy {row.eform:.2f} eV</b> ({CONFIDENCE:.0%} interval "
            f"{row.eform_lo:.2f} to {row.eform_hi:.2f} eV){moment}, labels of "
            f"<b>{in_html(row.label_source)}</b>",
            f"<b>{in_html(row.verdict)}</b>: {in_html(row.sentence)}",
            in_html(row.impossible),
        ]
        parts.append("<br>".join(filter(None, lines)))
    return "".join(f'<p style="margin: 0.4em 0; line-height: 1.4">{part}</p>' for part in parts)
