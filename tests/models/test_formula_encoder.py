"""The encoder of formulas and its tasks."""

import pytest
import torch

from defectkit.models.formulas import (
    CLS,
    MASK,
    SEP,
    FormulaEncoder,
    Formulas,
    masked,
    sentences,
    task_losses,
)

pytestmark = pytest.mark.usefixtures("double_precision")
MOS2 = Formulas(torch.tensor([[42, 16, 0]]), torch.tensor([[1, 2, 0]]))
KTAO3 = Formulas(torch.tensor([[19, 73, 8]]), torch.tensor([[1, 1, 3]]))


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    return FormulaEncoder(hidden=16, layers=2, heads=8).double().eval()


def test_a_pair_is_a_sentence():
    pair = sentences(MOS2, KTAO3)
    assert pair.token.tolist() == [[CLS, 42, 16, 0, SEP, 19, 73, 8, SEP]]
    assert pair.amount.tolist() == [[0, 1, 2, 0, 0, 1, 1, 3, 0]]
    assert pair.segment.tolist() == [[0, 0, 0, 0, 0, 1, 1, 1, 1]]


def test_shares_of_masked_elements():
    token = sentences(*(Formulas(*(t.expand(40_000, -1) for t in f)) for f in (MOS2, KTAO3))).token
    hidden, asked = masked(token, torch.Generator().manual_seed(0))
    element = (token > 0) & (token < MASK)
    assert not (asked & ~element).any()
    assert torch.equal(hidden[~asked], token[~asked])
    share = asked[element].double().mean()
    of_asked = (hidden[asked] == MASK).double().mean()
    kept = (hidden[asked] == token[asked]).double().mean()
    assert share == pytest.approx(0.15, abs=0.005)
    assert of_asked == pytest.approx(0.8, abs=0.01)
    assert kept == pytest.approx(0.1 + 0.1 / 118, abs=0.01)
    assert (hidden[asked] != 0).all()
    assert (hidden[asked] <= MASK).all()


def test_a_formula_is_a_set_and_padding_is_nothing(encoder):
    pair = sentences(MOS2, KTAO3)
    turned = sentences(MOS2, Formulas(*(t.flip(1) for t in KTAO3)))
    longer = sentences(
        *(Formulas(*(torch.nn.functional.pad(t, (0, 2)) for t in f)) for f in (MOS2, KTAO3))
    )
    with torch.no_grad():
        first, second, third = encoder(pair), encoder(turned), encoder(longer)
    assert torch.allclose(first.alike, second.alike)
    assert torch.allclose(first.element[0, 5:8], second.element[0, [7, 6, 5]])
    assert torch.allclose(first.alike, third.alike)


def test_amounts_and_the_other_formula_are_heard(encoder):
    more = MOS2._replace(amount=torch.tensor([[1, 3, 0]]))
    with torch.no_grad():
        first, second = (encoder(sentences(f, KTAO3)).element[0, 1] for f in (MOS2, more))
        third = encoder(sentences(MOS2, MOS2)).element[0, 1]
    assert not torch.allclose(first, second)
    assert not torch.allclose(first, third)


def test_losses_of_a_guess_that_knows_nothing_and_gradients_everywhere(encoder):
    pair = sentences(MOS2, KTAO3)
    asked = torch.zeros_like(pair.token, dtype=torch.bool)
    asked[0, 2] = True
    for p in encoder.parameters():
        p.data.zero_()
    losses = task_losses(encoder(pair), pair.token, asked, torch.tensor([True]))
    assert losses["element"].item() == pytest.approx(torch.tensor(118.0).log().item())
    assert losses["groups"].item() == pytest.approx(torch.tensor(2.0).log().item())
    torch.manual_seed(0)
    fresh = FormulaEncoder(layers=2).double()
    sum(task_losses(fresh(pair), pair.token, asked, torch.tensor([True])).values()).backward()
    assert all(p.grad is not None for p in fresh.parameters())
    assert fresh.vectors.grad_fn is not None
    assert fresh.vectors.shape == (118, 16)


def test_nothing_asked_costs_nothing(encoder):
    pair = sentences(MOS2, KTAO3)
    nothing = torch.zeros_like(pair.token, dtype=torch.bool)
    losses = task_losses(encoder(pair), pair.token, nothing, torch.tensor([True]))
    assert losses["element"].item() == 0.0
