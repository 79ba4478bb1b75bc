"""What training minimises, and what moves the weights: loss, optimisers, schedules.

Axes: B graphs.
"""

import math
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from defectkit.models.parts import Output
from defectkit.training.config import LossConfig, OptimiserConfig, ScheduleConfig


def loss_terms(
    output: Output,
    eform: Tensor,
    spin: Tensor,
    config: LossConfig,
    limits: tuple[float, float] = (-math.inf, math.inf),
    site_spin: Tensor | None = None,
) -> dict[str, Tensor]:
    """The weighted terms of equation (12), whose sum is the loss.

    mean |E_hat - E| / unit + lambda1 mean (S_hat - S)^2, and a penalty of lambda_range times the
    mean square by which E_hat lies outside of `limits`. The third term, lambda2 |Theta|^2, is the
    optimiser's weight decay. Where nodes have moments of their own, lambda1 times the sum of
    |m_hat - m| over the nodes of a graph comes in. Labels that are NaN do not count.

    Args:
        output: predictions.
        eform: (B,) eV.
        spin: (B,) μB; its magnitude counts.
        config: the weights.
        limits: lowest and highest energy that is physical, eV.
        site_spin: (N,) μB of the nodes, where the model says theirs.

    Returns:
        scalars "eform", "spin", "site_spin" and "range".
    """
    outside = output.eform - output.eform.clamp(*limits)
    moments = output.eform.new_zeros(())
    if output.site_spin is not None and site_spin is not None:
        moments = _known_error(output.site_spin, site_spin).abs().sum() / _count(spin)
    return {
        "eform": (_known_error(output.eform, eform).abs() / output.unit).sum() / _count(eform),
        "spin": config.spin * _known_error(output.spin, spin.abs()).square().sum() / _count(spin),
        "site_spin": config.spin * moments,
        "range": config.range * outside.square().mean(),
    }


def _known_error(predicted: Tensor, label: Tensor) -> Tensor:
    """(B,) error, zero where there is no label: before any power, whose gradient would be NaN."""
    return torch.where(label.isnan(), 0.0, predicted - label.nan_to_num())


def _count(label: Tensor) -> Tensor:
    return (~label.isnan()).sum().clamp(min=1)


class Muon(torch.optim.AdamW):
    """Muon (Jordan et al., 2024) for the groups with `muon`, AdamW for the others.

    A step of Muon is the momentum of a weight matrix made orthogonal, scaled to the size of a step
    of AdamW. In 32 bits: torch's own Muon works in bfloat16, which most CPUs have to emulate, and
    takes six times as long for the matrices of this kit.

    Args:
        groups: of parameters, each with "muon", "momentum" and "weight_decay".
        lr: learning rate.
    """

    def __init__(self, groups: list[dict], lr: float):
        super().__init__(groups, lr, fused=True)
        # A fused step takes scaled gradients as they are: then nobody may clip them before it.
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step of every parameter; the loss that `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        for group in groups:
            if group["muon"]:
                self._step_matrices(group)
        self.param_groups = [group for group in groups if not group["muon"]]
        super().step()
        self.param_groups = groups
        return loss

    def _step_matrices(self, group: dict) -> None:
        alike = defaultdict(list)  # lying matrices of one shape are made orthogonal together
        for p in group["params"]:
            if p.grad is None:
                continue
            if p not in self.state:  # "step" is what AdamW looks for when a state is loaded
                self.state[p] = {"step": torch.tensor(0.0), "mean": torch.zeros_like(p)}
            mean = self.state[p]["mean"].lerp_(p.grad, 1 - group["momentum"])
            ahead = p.grad.lerp(mean, group["momentum"])  # Nesterov's
            alike[tuple(sorted(p.shape))].append((p, _lying(ahead)))
        for (_, longest), found in alike.items():
            size = 0.2 * math.sqrt(longest)  # root mean square of a step of AdamW
            for (p, _), step in zip(found, orthogonal(torch.stack([ahead for _, ahead in found]))):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                _lying(p).sub_(step, alpha=group["lr"] * size)


def _lying(matrix: Tensor) -> Tensor:
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T


def orthogonal(matrices: Tensor) -> Tensor:
    """(n, a, b), a <= b, their singular values brought near to one by Newton-Schulz iterations.

    Five times X <- a X + (b A + c A A) X with A = X X^T; with these a, b and c of Jordan et al.
    (2024) the singular values end between 0.7 and 1.2, which serves as well as one and is sooner
    had.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def make_optimiser(model: nn.Module, config: OptimiserConfig) -> torch.optim.Optimizer:
    """The optimiser of a model's parameters.

    Weight decay acts on matrices only: biases, the scales of norms and single learned vectors
    are left free. Muon (Jordan et al., 2024) takes the matrices inside the model, with its steps
    scaled to AdamW's so that one learning rate serves both; AdamW takes all the rest, and the
    output layer and embeddings, as its authors advise.
    """
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    free = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    if config.name == "sgd":
        return torch.optim.SGD(groups, config.lr, momentum=config.momentum, nesterov=True)
    if config.name == "adam":
        return torch.optim.Adam(groups, config.lr)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, config.lr)
    outer = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    outer |= {id(p) for p in model.heads.parameters()}
    inner = [p for p in decayed if p.ndim == 2 and id(p) not in outer]
    inside = {id(p) for p in inner}
    rest = [p for p in decayed if id(p) not in inside]
    matrices = {"params": inner, "weight_decay": config.weight_decay, "muon": True}
    matrices["momentum"] = config.momentum
    others = [
        {"params": rest, "weight_decay": config.weight_decay, "muon": False},
        {"params": free, "weight_decay": 0.0, "muon": False},
    ]
    return Muon([matrices, *others], config.lr)


def make_schedule(
    optimiser: torch.optim.Optimizer, config: ScheduleConfig, steps: int
) -> LambdaLR | ReduceLROnPlateau:
    """The schedule of an optimiser over `steps` steps.

    `ReduceLROnPlateau` steps once an epoch with the validation error, the others every step.
    """
    if config.name == "plateau":
        return ReduceLROnPlateau(optimiser, factor=config.factor, patience=config.patience)
    return LambdaLR(optimiser, lambda step: rate_factor(config, step, steps))


def rate_factor(config: ScheduleConfig, step: int, steps: int) -> float:
    """What the learning rate is multiplied by at `step` of `steps` (not for "plateau").

    A linear rise over the share `warmup`, times the schedule's own factor: 1, `factor` for
    every milestone passed, or (1 + cos(pi progress)) / 2 after the rise.
    """
    rise = config.warmup * steps
    factor = min(1.0, (step + 1) / rise) if rise else 1.0
    if config.name == "piecewise":
        factor *= config.factor ** sum(step >= share * steps for share in config.milestones)
    if config.name == "cosine":
        progress = min(max(step - rise, 0.0) / max(steps - rise, 1.0), 1.0)
        factor *= 0.5 * (1.0 + math.cos(math.pi * progress))
    return factor
