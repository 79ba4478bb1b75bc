"""README and the pages of `docs/`: what stands there between marks is written here."""

import re
from pathlib import Path

import pandas as pd

from defectkit import DefectkitError
from defectkit.bench.measure import BENCHES
from defectkit.bench.pages import chain_page, minutes_table, mistakes_list, scale_page
from defectkit.bench.tables import (
    choice_table,
    interval_table,
    ladder_table,
    models_table,
    real_table,
    screen_table,
    starts_table,
    throughput_table,
    vectors_table,
)
from defectkit.data.sources import CHECKOUT_DATA
from defectkit.structures.writing import write_text

README = CHECKOUT_DATA.parent / "README.md"
TABLES = {
    "models_demo": models_table,
    "starts": starts_table,
    "models_2dmd": real_table,
    "throughput": throughput_table,
    "ladder": ladder_table,
    "intervals_2dmd": interval_table,
    "screen": screen_table,
    "choice": choice_table,
    "vectors": vectors_table,
}
PAGES = {  # path: the table that it is made of, and how
    "docs/scale.md": ("scale", scale_page),
    "docs/one_defect.md": ("chain", chain_page),
}
# Blocks of pages that are written by hand.
BLOCKS = {"docs/teaching.md": {"minutes": minutes_table, "mistakes": mistakes_list}}


def update(readme: Path = README, check: bool = False) -> bool:
    """Write tables and `BLOCKS` between their marks, `<!-- NAME -->` and `<!-- /NAME -->`; `PAGES`.

    Args:
        readme: the file.
        check: whether only to compare.

    Returns:
        whether the file was up to date.

    Raises DefectkitError where a mark or a table's file is missing.
    """
    tables = {name: render(_measured(readme, name)) for name, render in TABLES.items()}
    texts = {readme: _filled(readme, tables)}
    for place, blocks in BLOCKS.items():
        if (page := readme.parent / place).is_file():
            texts[page] = _filled(page, {name: render() for name, render in blocks.items()})
    for place, (name, render) in PAGES.items():
        texts[readme.parent / place] = render(_measured(readme, name))
    stale = {
        path: text
        for path, text in texts.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    }
    for path, text in {} if check else stale.items():
        write_text(path, text)
    return not stale


def _filled(page: Path, blocks: dict[str, str]) -> str:
    """The text of a page with each block between its marks."""
    text = page.read_text(encoding="utf-8")
    for name, content in blocks.items():
        block = f"<!-- {name} -->\n{content}\n<!-- /{name} -->"
        text, found = re.subn(
            f"<!-- {name} -->.*<!-- /{name} -->", lambda _, b=block: b, text, flags=re.DOTALL
        )
        if found != 1:
            raise DefectkitError(f"{page} has no place for the table {name}.")
    return text


def _measured(readme: Path, name: str) -> pd.DataFrame:
    """The table of a benchmark in the checkout of `readme`."""
    file = readme.parent / "data" / "benchmarks" / f"{name}.csv"
    if not file.is_file():
        bench = name if name in BENCHES else name.split("_")[0]
        raise DefectkitError(f"{file} is missing; run `defectkit bench {bench}`.")
    return pd.read_csv(file)
