"""What a figure shows in words, for readers who hear a page instead of seeing it.

The words are those of the figure itself: titles, axes and legends. In a notebook every figure of
matplotlib gets them as the `alt` text of its picture, which pages made of the notebook keep.
"""

import re
from collections.abc import Iterable

LONGEST = 500  # characters; a legend of fifty hosts helps nobody
FIGURE = "matplotlib.figure.Figure"


def describe(figure) -> str:
    """A sentence or a few about a matplotlib figure; never empty."""
    parts = [_text(figure.get_suptitle())]
    parts += [words for ax in figure.axes if ax.get_visible() and (words := _axes(ax))]
    if not any(parts):
        drawn = [_text(text.get_text()) for ax in figure.axes for text in ax.texts]
        parts = [f"A drawing with the words {'; '.join(filter(None, drawn))}"] if any(drawn) else []
    words = ". ".join(filter(None, parts)) or f"A figure of {len(figure.axes)} parts without labels"
    return words if len(words) <= LONGEST else f"{words[:LONGEST].rsplit(' ', 1)[0]} …"


def _axes(ax) -> str:
    """Of one part of a figure: its title, what is drawn over what, and what its legend names."""
    title = "; ".join(filter(None, (_text(ax.get_title(loc)) for loc in ("left", "center"))))
    x, y = _text(ax.get_xlabel()), _text(ax.get_ylabel())
    frame = f"{y} over {x}" if x and y else x or y
    legend = ax.get_legend()
    names = [_text(text.get_text()) for text in legend.get_texts()] if legend else []
    return ": ".join(filter(None, (title, _joined((frame, _joined(names, ", ")), "; with "))))


def _joined(parts: Iterable[str], between: str) -> str:
    return between.join(filter(None, parts))


def _text(label: str) -> str:
    r"""A label on one line, formulas as near to plain text as can be: "MoS$_2$" is "MoS2"."""
    plain = re.sub(
        r"(?<!\\)\$(.+?)(?<!\\)\$", lambda m: re.sub(r"\\math\w+|[{}_^]", "", m[1]), label
    )
    return " ".join(plain.replace(r"\$", "$").split())


def attach() -> None:
    """Let the notebook that this runs in give every figure its `alt` text; elsewhere, nothing."""
    from IPython import get_ipython

    if (shell := get_ipython()) is not None:
        # Not of the PNG formatter itself, which the inline backend sets anew at its first figure.
        bundle = shell.display_formatter.mimebundle_formatter
        bundle.for_type(FIGURE, lambda figure: ({}, {"image/png": {"alt": describe(figure)}}))
