"""What holds for every page of the tour."""

import re
from html.parser import HTMLParser
from pathlib import Path

UNREAD = {"script", "style", "pre", "code", "math"}  # their text is no prose


class Seen(HTMLParser):
    """The tags and the prose of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.prose, self._inside = "", []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._inside += [tag] if tag in UNREAD else []

    def handle_endtag(self, tag):
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, text):
        self.prose += "" if self._inside else text


def assert_page_stands_alone(path: Path) -> Seen:
    """It asks for nothing, shows formulas, no dead widgets, words for pictures, ways to others."""
    page = path.read_text(encoding="utf-8")
    seen = Seen(page)
    for tag, attributes in seen.tags:
        assert not (tag == "script" and "src" in attributes), attributes
        assert tag != "link", attributes
        for name in ("src", "href", "srcset", "data"):
            value = attributes.get(name) or ""
            fetched = value.startswith(("http:", "https:", "//")) and tag != "a"
            assert not fetched, f"{tag} fetches {value}"
        if tag == "img":
            assert attributes.get("alt", "").strip(), "a picture without words"
            assert "No description" not in attributes["alt"]
    assert not re.search(r"@import|url\((?!\s*[\"']?(data:|#))", page), "a style fetches something"
    formulas = re.findall(r"\$[^$\n]+\$|\\\(|\\\[|\\begin\{", seen.prose)
    assert formulas == [], "formulas as TeX"
    for words in ("Error displaying widget", "widget-view+json", "cdnjs", "unpkg", "require.js"):
        assert words not in page
    assert not re.search(r"^\w+\((children=|options=|value=)", seen.prose, re.MULTILINE)
    links = [a["href"] for tag, a in seen.tags if tag == "a" and a.get("href")]
    assert "index.html" in links
    for link in links:
        if not link.startswith(("#", "http")):
            assert link.endswith(".html"), link
    return seen
