"""Shows names from data, such as those of rows, hosts and files, as plain text everywhere.

A name may hold markup, TeX, control characters or a whole page of text. Each place in which it is
shown has one function here, which shows it as it is and keeps it from having any effect.
"""

import html
from copy import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

STYLED = "pandas.io.formats.style.Styler"
LONGEST = 60  # characters of a name in a figure


def in_terminal(text: object) -> str:
    r"""A name on one line of a terminal, without power over it: control characters become \x1b.

    So do marks that turn the direction of writing, and bytes of a file name that are no text.
    """
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in str(text)
    )


def one_line(text: object, longest: int = 200) -> str:
    """A message of another library, or a value from a file, for use inside a sentence.

    It is on one line of a terminal; a long one loses its middle.
    """
    return _shortened(in_terminal(" ".join(str(text).split())), longest)


def in_html(text: object) -> str:
    """A name inside an HTML page or widget, where it is neither markup nor a formula."""
    # JupyterLab sets formulas in the text of widgets too; its MathJax passes these classes by.
    words = html.escape(in_terminal(text))
    return f'<span class="mathjax_ignore tex2jax_ignore">{words}</span>' if "$" in words else words


def in_figure(text: object, longest: int = LONGEST) -> str:
    """A name in a figure, where dollar signs begin no formula; a long one loses its middle."""
    words = _shortened(in_terminal(text), longest)
    # A legend leaves out what begins with a low line.
    return words.replace("$", r"\$").replace("_", " _", 1 if words.startswith("_") else 0)


def _shortened(words: str, longest: int) -> str:
    return words if len(words) <= longest else f"{words[: longest // 2]}…{words[-longest // 2 :]}"


def attach() -> None:
    """Let tables in the notebook that this runs in show names as text; elsewhere, nothing.

    pandas escapes markup in a plain table by itself, but neither in a styled one nor dollar signs.
    """
    from IPython import get_ipython

    if (shell := get_ipython()) is not None:
        import pandas as pd

        pd.set_option("display.html.use_mathjax", False, "styler.html.mathjax", False)
        shell.display_formatter.formatters["text/html"].for_type(STYLED, _styled)


def _styled(styler: "Styler") -> str:
    """A styled table as HTML; what it does to numbers stays."""
    styler = copy(styler)
    styler.data = styler.data.map(lambda value: in_html(value) if isinstance(value, str) else value)
    return styler.format_index(escape="html").format_index(escape="html", axis=1).to_html()
