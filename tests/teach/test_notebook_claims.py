"""What notebooks say of structures and tables: by what they are, not by number or by hand."""

import re

import pytest

from defectkit.data import load
from defectkit.teach import notebooks

NUMBERED_SITE = re.compile(r"""["'](?:ads|int|sub|vac|div|cpx)\d+["']""")


@pytest.mark.parametrize("source", notebooks.sources(), ids=lambda source: source.stem)
def test_no_site_is_chosen_by_its_number(source):
    code = [
        cell.source for cell in notebooks.solved(source).cells if cell.cell_type == "code"
    ]  # in texts a number may be explained
    assert not NUMBERED_SITE.findall("\n".join(code))


def test_a_numbered_site_would_be_seen():
    assert NUMBERED_SITE.findall('next(s for s in find_sites(unit) if s.name == "vac0")')


def test_interstitials_of_notebook_01_cost_in_the_demo_data_what_it_says():
    frame = load("demo").frame
    inside = frame[frame.defecttype == "interstitial"].groupby(["host", "dopant"]).eform
    assert inside.max()[[("ZrSe2", "Cr"), ("WTe2", "Li")]].max() < 1
    assert inside.min()["MoS2", "Cs"] > 5
