"""What holds for every page of the site."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

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

    def ids(self) -> set[str]:
        return {a[name] for _, a in self.tags for name in ("id", "name") if a.get(name)}

    def links(self) -> list[str]:
        return [a["href"] for tag, a in self.tags if tag == "a" and a.get("href")]


def assert_page_stands_alone(path: Path) -> Seen:
    """It asks for nothing outside, shows formulas, no dead widgets, words for pictures."""
    page = path.read_text(encoding="utf-8")
    seen = Seen(page)
    for tag, attributes in seen.tags:
        for name in ("src", "href", "srcset", "data"):
            value = attributes.get(name) or ""
            fetched = value.startswith(("http:", "https:", "//")) and tag != "a"
            assert not fetched, f"{tag} fetches {value}"
        if tag == "img":
            assert attributes.get("alt", "").strip(), "a picture without words"
            assert "No description" not in attributes["alt"]
    assert not re.search(r"@import|url\(\s*[\"']?(https?:|//)", page), "a style fetches something"
    formulas = re.findall(r"\$[^$\n]+\$|\\\(|\\\[|\\begin\{", seen.prose)
    assert formulas == [], "formulas as TeX"
    for words in ("Error displaying widget", "widget-view+json", "cdnjs", "unpkg", "require.js"):
        assert words not in page
    assert not re.search(r"^\w+\((children=|options=|value=)", seen.prose, re.MULTILINE)
    return seen


def assert_site_stands_alone(folder: Path) -> None:
    """Every page does, no style or script of the site fetches, and every link leads somewhere."""
    seen = {path.resolve(): assert_page_stands_alone(path) for path in folder.rglob("*.html")}
    for style in folder.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:|//)", text), style
    for path, page in seen.items():
        for link in page.links():
            if link.startswith(("http:", "https:")):
                assert link.startswith("https://"), (path, link)
                continue
            place, _, anchor = unquote(link).partition("#")
            target = (path.parent / place.partition("?")[0]).resolve() if place else path
            assert target.exists(), (path.name, link)
            if anchor and target in seen:
                assert anchor in seen[target].ids(), (path.name, link)
