import math
from copy import deepcopy

import pytest
import torch
from torch import nn

from defectkit.models.parts import Heads, Output
from defectkit.training.config import LossConfig, OptimiserConfig, ScheduleConfig
from defectkit.training.objectives import (
    Muon,
    loss_terms,
    make_optimiser,
    make_schedule,
    orthogonal,
    rate_factor,
)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.kind = nn.Embedding(5, 4)
        self.inner = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.heads = Heads(4)

    def forward(self, x):
        return self.heads(self.norm(self.inner(self.kind(x)))).eform


def test_loss_is_equation_12_by_hand():
    output = Output(torch.tensor([1.0, -2.0]), torch.tensor([0.5, 2.0]))
    terms = loss_terms(
        output,
        torch.tensor([2.0, -2.5]),
        torch.tensor([0.0, -3.0]),  # a negative moment counts with its magnitude
        LossConfig(spin=0.1, range=2.0),
        limits=(-1.5, 5.0),
    )
    assert terms["eform"].item() == pytest.approx((1.0 + 0.5) / 2)
    assert terms["spin"].item() == pytest.approx(0.1 * (0.25 + 1.0) / 2)
    assert terms["range"].item() == pytest.approx(2.0 * 0.25 / 2)


def test_errors_of_atoms_count_by_graph_and_unknown_ones_do_not():
    output = Output(
        torch.tensor([1.0, -2.0]),
        torch.tensor([0.5, 2.0]),
        torch.tensor([0.5, 0.0, 2.0]),
    )
    terms = loss_terms(
        output,
        torch.tensor([1.0, -2.0]),
        torch.tensor([0.5, 2.0]),
        LossConfig(spin=0.1),
        site_spin=torch.tensor([0.2, 0.1, math.nan]),
    )
    assert terms["site_spin"].item() == pytest.approx(0.1 * (0.3 + 0.1) / 2)
    silent = loss_terms(output, output.eform, output.spin, LossConfig())
    assert silent["site_spin"].item() == 0.0


def test_unknown_labels_do_not_count_and_leave_gradients_finite():
    eform = torch.tensor([1.0, 5.0], requires_grad=True)
    spin = torch.tensor([1.0, 1.0], requires_grad=True)
    nan = torch.tensor([math.nan, 4.0])
    terms = loss_terms(Output(eform, spin), nan, nan * math.nan, LossConfig())
    assert terms["eform"].item() == 1.0
    assert terms["spin"].item() == 0.0
    sum(terms.values()).backward()
    assert eform.grad.tolist() == [0.0, 1.0]
    assert spin.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "muon"])
def test_every_optimiser_learns_and_comes_back_from_its_state(name):
    def fresh():
        torch.manual_seed(0)
        model = Small()
        return model, make_optimiser(model, OptimiserConfig(name, lr=0.02, weight_decay=0.01))

    x, y = torch.arange(5), torch.linspace(-1, 1, 5)

    def step(model, optimiser):
        optimiser.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimiser.step()
        return loss.item()

    model, optimiser = fresh()
    losses = [step(model, optimiser) for _ in range(60)]
    assert losses[-1] < 0.3 * losses[0]
    assert {id(p) for g in optimiser.param_groups for p in g["params"]} == set(
        map(id, model.parameters())
    )
    other, resumed = fresh()
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(deepcopy(optimiser.state_dict()))
    assert step(model, optimiser) == step(other, resumed)
    assert step(model, optimiser) == step(other, resumed)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (5, 5)])
def test_muon_is_that_of_torch_with_more_digits(shape):
    torch.manual_seed(0)
    start = torch.randn(shape)
    own, other = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    settings = {"lr": 0.1, "weight_decay": 0.05, "momentum": 0.9}
    pair = (
        Muon([{"params": [own], "muon": True, **settings}], settings["lr"]),
        torch.optim.Muon([other], **settings, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        own.grad = torch.randn(shape)
        other.grad = own.grad.clone()
        for optimiser in pair:
            optimiser.step()
    assert (own - start).norm() > 0.1
    assert (own - other).norm() < 0.02 * (own - start).norm()


def test_a_step_is_made_orthogonal():
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(3, 8, 20)))
    assert values.shape == (3, 8)
    assert 0.6 < values.min() < values.max() < 1.3


def test_muon_has_the_inner_matrices_and_adamw_the_rest():
    model = Small()
    optimiser = make_optimiser(model, OptimiserConfig("muon"))
    groups = optimiser.param_groups
    inner = [p for group in groups if group["muon"] for p in group["params"]]
    assert [p is model.inner.weight for p in inner] == [True]
    others = {id(p) for group in groups if not group["muon"] for p in group["params"]}
    assert id(model.kind.weight) in others
    assert id(model.heads.map[0].weight) in others


@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_biases_and_norms_do_not_decay(name):
    model = Small()
    optimiser = make_optimiser(model, OptimiserConfig(name, weight_decay=0.5))
    decay = {id(p): g["weight_decay"] for g in optimiser.param_groups for p in g["params"]}
    assert decay[id(model.inner.weight)] == 0.5
    assert decay[id(model.inner.bias)] == 0.0
    assert decay[id(model.norm.weight)] == 0.0


def test_schedules_by_hand():
    cosine = ScheduleConfig("cosine", warmup=0.1)
    assert rate_factor(cosine, 0, 100) == pytest.approx(0.1)
    assert rate_factor(cosine, 9, 100) == pytest.approx(1.0)
    assert rate_factor(cosine, 55, 100) == pytest.approx(0.5)
    assert rate_factor(cosine, 100, 100) == pytest.approx(0.0)
    steps = ScheduleConfig("piecewise", warmup=0.0, milestones=(0.5, 0.8), factor=0.1)
    assert [rate_factor(steps, k, 10) for k in (0, 4, 5, 7, 8)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01]
    )
    constant = ScheduleConfig("constant", warmup=0.0)
    assert rate_factor(constant, 99, 100) == 1.0


def test_plateau_waits_for_the_validation_error():
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make_schedule(optimiser, ScheduleConfig("plateau", factor=0.5, patience=2), 10)
    for _ in range(4):
        schedule.step(1.0)
    assert optimiser.param_groups[0]["lr"] == 0.5
