"""The pages for lectures as files; in a browser they are in tests/widgets."""

import re

import nbformat

from defectkit.teach import lecture
from defectkit.widgets.lecture import APPS


def test_what_is_written_is_valid_and_always_the_same(tmp_path):
    path = lecture.write(tmp_path)
    nbformat.validate(nbformat.read(path, as_version=4))
    before = {one: one.read_bytes() for one in tmp_path.rglob("*") if one.is_file()}
    assert lecture.write(tmp_path) == path
    assert {one: one.read_bytes() for one in tmp_path.rglob("*") if one.is_file()} == before


def test_every_app_has_its_link_on_the_start_page_and_no_page_names_a_network(tmp_path):
    lecture.write(tmp_path)
    texts = {one.name: one.read_text() for one in lecture._templates(tmp_path).rglob("*.*")}
    start = texts["tree-lab.html"]
    assert re.findall(r"\?app=([\w-]+)", start) == list(lecture.PAGES) == list(APPS)
    for title, asked in lecture.PAGES.values():
        assert title in start
        assert asked in start
    for text in texts.values():
        assert not re.search(r"https?://|//cdn|@import", text)


def test_the_server_finds_the_template_and_no_proxy_stands_between(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", "elsewhere")
    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.delenv("NO_PROXY", raising=False)
    given = lecture.environment(lecture.write(tmp_path))
    own, other = given["JUPYTER_PATH"].split(":")
    assert other == "elsewhere"
    assert (tmp_path / "jupyter").samefile(own)
    assert given["no_proxy"] == given["NO_PROXY"] == "example.org,127.0.0.1,localhost"
