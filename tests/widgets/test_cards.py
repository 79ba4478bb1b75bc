"""Cards of a short list: each candidate in 3D with its numbers and its reason."""

import sys

import pytest

from defectkit.predict.own import training_hosts
from defectkit.screening import Engine, Space, Wish, screen
from defectkit.screening.handover import families_of
from defectkit.widgets import ShortList

pytestmark = pytest.mark.usefixtures("no_windows")


@pytest.fixture(scope="module")
def screening(tmp_path_factory):
    space = Space({"MoS2": training_hosts("demo")["MoS2"]}, ("Cr", "H"), ("adsorbate", "vacancy"))
    return screen(space, tmp_path_factory.mktemp("cards"), Wish(length=3), Engine(workers=0))


def test_a_card_shows_its_candidate(screening):
    chosen = screening.table("chosen")
    cards = ShortList(screening, 2)
    assert [view.graph.uid for view in cards.views] == list(chosen.index[:2])
    (row,) = cards.children
    for box, (_, candidate) in zip(row.children, chosen.iterrows()):
        text, view = box.children
        assert candidate["name"] in text.value
        assert candidate.reason in text.value
        assert view.graph.is_defect.any()
    assert bytes(cards.picture.value).startswith(b"\x89PNG")
    assert chosen["name"].iloc[0] in cards.alt


def test_without_nglview_the_picture_is_there(screening, monkeypatch):
    monkeypatch.setitem(sys.modules, "nglview", None)
    cards = ShortList(screening, 1)
    assert cards.children[0] is cards.picture


def test_an_empty_short_list_has_no_card(screening, tmp_path):
    none = screen(screening.space, tmp_path, Wish(least_spin=99.0), Engine(workers=0))
    assert ShortList(none).views == []


def test_a_family_of_a_candidate_holds_it_alone(screening):
    keys = screening.table("chosen").index
    found = dict(families_of(screening, keys))
    assert set(found) == set(keys)
    assert all(family.keys == [key] for key, family in found.items())
