"""Figures as pictures: inside widgets, on pages without a kernel, and of a run while it trains."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import ipywidgets
import lightning.pytorch as pl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.display import display
from lightning.pytorch.callbacks import Callback
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from defectkit.plots import style
from defectkit.plots.results import learning_curve
from defectkit.training.engine import History

DPI = 80
ROW = {"flex_flow": "row wrap"}  # controls that do not fit beside each other stand in two lines
LINE = {"max_width": "100%", "overflow": "auto hidden"}  # of text, however long its words are
# A notebook keeps three outputs of a widget: the widget, a line of text with this style, a picture.
# Where a kernel answers, the style hides line and picture; where none does, the widget, of which
# nothing is left but an error.
STILL = "defectkit-still"
_LIVE = ":has(.jp-OutputArea-output .jupyter-widgets:not(.jupyter-widgets-disconnected))"
_CHILD, _LINE = ".jp-OutputArea-child", f".jp-OutputArea-child:has(.{STILL})"
STYLE = f"""<style>
{_CHILD}{_LIVE} + {_LINE}, {_CHILD}{_LIVE} + {_LINE} + {_CHILD}:has(img) {{ display: none }}
{_CHILD}:not({_LIVE}):has(+ {_CHILD} .{STILL}) {{ display: none }}
</style>"""
SHOWN = ("train_loss", "valid_eform_mae")


class Sheet:
    """A figure that is drawn on again and again: making axes anew takes longer than to draw.

    Args:
        size: width and height, inches.
        widths: of the axes of a row, relative.
        rows: of axes.
        edges: left, right, bottom and top of the axes in shares of the figure, and the room between
            them, beside and above each other. To find the best ones takes longer than to draw.
        barred: how many axes lie left of the colour bar; all where it is not given, and where it
            is zero there is no bar.
        dpi: dots an inch.

    Attributes:
        axes: (rows, len(widths)) of matplotlib, without labels yet.
        bar: the colour bar, or None.
    """

    def __init__(
        self,
        size: tuple[float, float],
        widths: tuple[float, ...] = (1,),
        rows: int = 1,
        edges: tuple[float, ...] = (0.05, 0.99, 0.13, 0.96, 0.2),
        barred: int | None = None,
        dpi: int = DPI,
    ) -> None:
        self.figure = Figure(figsize=size, dpi=dpi)  # not of pyplot, which would show it once more
        self.canvas = FigureCanvasAgg(self.figure)
        names = ("left", "right", "bottom", "top", "wspace", "hspace")
        self.figure.subplots_adjust(**dict(zip(names, edges)))
        self.axes = self.figure.subplots(rows, len(widths), width_ratios=widths, squeeze=False)
        for ax in self.axes.flat:
            ax.locator_params(nbins=5)  # labels of ticks are half of the time
        self.bar = None
        if beside := list(self.axes.flat[:barred]):
            colours = plt.cm.ScalarMappable()
            self.bar = self.figure.colorbar(colours, ax=beside, shrink=0.85, pad=0.02)
            self.bar.locator = plt.MaxNLocator(5)
        self._frames, self._background = None, None

    def wipe(self) -> np.ndarray:
        """The axes, empty but for what stands around them."""
        for ax in self.axes.flat:
            for artist in (*ax.collections, *ax.lines, *ax.patches, *ax.texts):
                artist.remove()
            ax.containers.clear()  # or a legend would show bars of before
        return self.axes

    def png(self) -> bytes:
        """What is drawn; frames and labels that are as they were are not drawn anew."""
        every = list(self.axes.flat)
        moving = [a for ax in every for a in (*ax.collections, *ax.patches, *ax.lines, *ax.texts)]
        moving += [every[-1].yaxis, *([self.bar.ax] if self.bar else [])]
        moving += [ax.get_legend() for ax in every if ax.get_legend()]
        moving.sort(key=lambda artist: artist.zorder)
        frames = [(ax.get_xlim(), ax.get_xlabel()) for ax in every]
        frames += [ax.get_ylim() for ax in every[:-1]]
        if frames != self._frames:
            shown = [artist for artist in moving if artist.get_visible()]
            for artist in shown:
                artist.set_visible(False)
            self.canvas.draw()
            self._frames = frames
            self._background = self.canvas.copy_from_bbox(self.figure.bbox)
            for artist in shown:
                artist.set_visible(True)
        self.canvas.restore_region(self._background)
        for artist in moving:
            self.figure.draw_artist(artist)
        buffer = io.BytesIO()
        # Hard compression takes longer than the way of a larger file to the browser.
        imsave(buffer, np.asarray(self.canvas.buffer_rgba()), pil_kwargs={"compress_level": 1})
        return buffer.getvalue()


def png(figure: Figure) -> bytes:
    """A figure as a picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


class Pictured(ipywidgets.VBox):
    """A box with a `picture`, which stands in its place where no kernel answers.

    Attributes:
        picture: a PNG image widget.
        alt: the picture in words.
    """

    def __init__(self, children: Sequence[ipywidgets.Widget] = (), **settings: Any) -> None:
        # As large as it was drawn, but never larger than the page: a box would stretch it.
        layout = {"align_self": "flex-start", "max_width": "100%", "height": "auto"}
        self.picture = ipywidgets.Image(format="png", layout=layout)
        self.alt = ""
        super().__init__(children, **settings)

    def paint(self, drawn: Sheet | Figure) -> None:
        """Let the picture show what is drawn on a sheet or in a figure."""
        if isinstance(drawn, Sheet):
            self.picture.value, figure = drawn.png(), drawn.figure
        else:
            self.picture.value, figure = png(drawn), drawn
        self.alt = style.describe(figure)

    def _ipython_display_(self, **settings: Any) -> None:
        """Show the widget, and keep its picture as it is now."""
        bundle = super()._repr_mimebundle_() or {}
        display({**bundle, "text/plain": ""}, raw=True)
        words = "Run the cell for the view that this picture is of."
        if not self.picture.value:
            words = "There is a view here that answers clicks: run the cell."
        display({"text/html": f'{STYLE}<p class="{STILL}">{words}</p>', "text/plain": ""}, raw=True)
        if self.picture.value:
            png = base64.b64encode(bytes(self.picture.value)).decode()
            display({"image/png": png}, metadata={"image/png": {"alt": self.alt}}, raw=True)


class LiveCurve(Callback):
    """Draws the loss and the validation error anew after every epoch, in one place of the page.

    For `train(..., progress=False, callbacks=(LiveCurve(),))`. Outside of a notebook nothing is
    drawn. A run that is resumed shows its earlier epochs as well.

    Args:
        baseline: eV, a mean absolute error to compare with, such as that of predicting the mean.

    Attributes:
        metrics: columns train_loss and valid_eform_mae (eV) by epoch, counted from 1.
    """

    def __init__(self, baseline: float | None = None) -> None:
        self.baseline = baseline
        self.metrics = pd.DataFrame(columns=list(SHOWN), dtype=float)
        self.handle = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the metrics of the epoch that ended, and draw them."""
        history = next(c for c in trainer.callbacks if isinstance(c, History))
        self.metrics = pd.DataFrame(history.rows).set_index("epoch")[list(SHOWN)]
        self.metrics.index += 1
        if _in_notebook():
            self._draw(trainer.max_epochs)

    def in_words(self) -> str:
        """Tell where the error falls below the baseline, and its best and last value (eV)."""
        error = self.metrics.valid_eform_mae
        below = error.index[error < self.baseline]
        where = "never below the dashed line"
        if len(below):
            where = f"below the dashed line from epoch {below[0]} on"
        return (
            f"{where} · best in epoch {error.idxmin()}, {error.min():.2f} eV, at the end "
            f"{error.iloc[-1]:.2f} eV"
        )

    def _draw(self, epochs: int) -> None:
        axes = learning_curve(self.metrics, epochs, self.baseline)
        figure = axes[0].figure
        plt.close(figure)  # else the notebook shows it a second time
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)


def _in_notebook() -> bool:
    """Whether pictures can be shown: only a notebook's shell has a kernel."""
    return hasattr(get_ipython(), "kernel")
