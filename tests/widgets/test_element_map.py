"""The map of elements: a click chooses, neighbours light up, the picture stays; no browser."""

import io

import numpy as np
import pytest
from PIL import Image

from defectkit import DefectkitError
from defectkit.evaluation.vectors import known_vectors, nearest
from defectkit.plots import style
from defectkit.plots.vectors import cell_of
from defectkit.widgets import ElementMap, picture

pytestmark = pytest.mark.usefixtures("no_windows")


@pytest.fixture(scope="module")
def vectors():
    return known_vectors("elemental").iloc[2:56]


@pytest.fixture(scope="module")
def shown(vectors):
    return ElementMap(vectors, "S")


def lit(shown):
    return {x for x, button in shown.buttons.items() if style.ORANGE in button.layout.border}


def test_every_element_with_a_vector_is_a_button_in_its_place(shown, vectors):
    assert list(shown.buttons) == list(vectors.index)
    column, row = cell_of(42)
    assert shown.buttons["Mo"].layout.grid_area == f"{row:.0f} / {column}"
    places = {button.layout.grid_area for button in shown.buttons.values()}
    assert len(places) == len(vectors)


def test_a_click_lights_the_nearest_and_changes_the_plot(shown, vectors):
    shown.choose("S")
    before = bytes(shown.plot.value)
    shown.buttons["Mo"].click()
    assert shown.chosen == "Mo"
    assert lit(shown) == set(nearest(vectors, "Mo").index) == set(shown.near.index)
    assert "black" in shown.buttons["Mo"].layout.border
    assert bytes(shown.plot.value) != before
    assert all(f"<b>{symbol}</b>" in shown.words.value for symbol in shown.near.index)
    strongest = shown.near.index[0]
    assert "Molybdenum" in shown.buttons["Mo"].tooltip
    assert f"{shown.near[strongest]:.2f} with Mo" in shown.buttons[strongest].tooltip


def test_an_element_without_a_vector_is_refused_and_nothing_changes(shown):
    shown.choose("S")
    with pytest.raises(DefectkitError, match="no vector of U"):
        shown.choose("U")
    assert shown.chosen == "S"


def test_without_a_kernel_table_and_plot_stay_as_one_picture(shown, monkeypatch):
    displayed = []
    monkeypatch.setattr(picture, "display", lambda data, **more: displayed.append((data, more)))
    shown.choose("Cl")
    shown._ipython_display_()
    pixels = np.asarray(Image.open(io.BytesIO(bytes(shown.picture.value))).convert("RGB"))
    assert pixels.shape[1] > 2 * pixels.shape[0]  # both, side by side
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
    assert any("image/png" in data for data, _ in displayed)
    assert "cosine similarity to Cl" in shown.alt
