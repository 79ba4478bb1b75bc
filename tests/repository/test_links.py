"""Every link of README, docs/ and the notebooks leads to something that exists."""

import re
from itertools import chain
from pathlib import Path

import pytest

from defectkit.teach import notebooks

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "data" / "README.md"]
SOURCES = notebooks.sources()
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\[\]]*\])*\]\((?P<target>[^()\s]+(?:\([^()\s]*\)[^()\s]*)?)\)")


def text_of(path: Path) -> str:
    """Its Markdown, less code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        cells = notebooks.solved(path).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return re.sub(r"(?s)```.*?```|(?<!\[)`[^`\n]*`", "", text)


def anchors(path: Path) -> set[str]:
    """Of its headings, as GitHub and the site make them."""
    headings = re.findall(r"(?m)^#+ +(.+?)\s*$", text_of(path))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def fault(link: str, folder: Path, page: Path) -> str:
    """What is wrong with a link of a page that lies in `folder`; empty where nothing is."""
    if re.match(r"[a-z]+:", link):
        good = re.fullmatch(r"https://[a-z0-9.-]+\.[a-z]+(/\S*)?", link)
        return "" if good else "is no address that begins with https"
    place, _, anchor = link.partition("#")
    target = (folder / place).resolve() if place else page
    if not target.exists():
        return "leads nowhere"
    if target.suffix == ".ipynb":
        target = target.parent / "source" / f"{target.stem}.py"
    known = anchor and target.suffix in {".md", ".py"}
    return f"has no heading {anchor}" if known and anchor not in anchors(target) else ""


@pytest.mark.parametrize("page", [*PAGES, *SOURCES], ids=lambda path: path.name)
def test_every_link_leads_somewhere(page):
    folder = notebooks.FOLDER if page in SOURCES else page.parent
    links = [found["target"] for found in LINK.finditer(text_of(page))]
    faults = {link: fault(link, folder, page) for link in links}
    assert {link: wrong for link, wrong in faults.items() if wrong} == {}


def test_links_are_found_and_judged():
    found = chain.from_iterable(LINK.findall(text_of(page)) for page in [*PAGES, *SOURCES])
    assert len(list(found)) > 20
    page = ROOT / "README.md"
    assert fault("docs/architecture.md#which-room", ROOT, page) == ""
    for wrong in ("docs/none.md", "#no-such-heading", "http://example.org", "https://nowhere"):
        assert fault(wrong, ROOT, page), wrong
