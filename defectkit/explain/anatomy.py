"""The parts of a model: shapes of their outputs, their weights, and the vectors of the nodes."""

from collections.abc import Callable, Iterator

import pandas as pd
import torch
from torch import Tensor, nn

from defectkit.graphs.build import CrystalGraph
from defectkit.models.attention import Pairs

READOUTS = ("pooling", "readout")  # names of the read-out in the models


@torch.no_grad()
def shapes(model: nn.Module, graph: CrystalGraph) -> pd.DataFrame:
    """The parts of a model in the order in which they answer, the blocks of a list one by one.

    Args:
        model: of `models.MODELS`.
        graph: one graph or a batch.

    Returns:
        Columns kind (name of the class), output (shapes, in words where it is no tensor) and
        weights (how many), indexed by the part's name.
    """
    rows: list[tuple] = []

    def note(name: str) -> Callable:
        def hook(part: nn.Module, inputs: tuple, output: object) -> None:
            weights = sum(p.numel() for p in part.parameters())
            rows.append((name, type(part).__name__, _describe(output), weights))

        return hook

    hooks = [part.register_forward_hook(note(name)) for name, part in _parts(model)]
    try:
        model(graph)
    finally:
        for hook in hooks:
            hook.remove()
    return pd.DataFrame(rows, columns=["part", "kind", "output", "weights"]).set_index("part")


@torch.no_grad()
def node_vectors(model: nn.Module, graph: CrystalGraph) -> Tensor:
    """(N, D) the vectors of the nodes that reach the read-out of a model."""
    found: list[Tensor] = []
    readout = next(getattr(model, name) for name in READOUTS if hasattr(model, name))
    hook = readout.register_forward_pre_hook(lambda part, inputs: found.append(inputs[0]))
    try:
        model(graph)
    finally:
        hook.remove()
    return found[0]


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, part in model.named_children():
        if isinstance(part, nn.ModuleList):
            yield from ((f"{name}.{number}", block) for number, block in enumerate(part))
        else:
            yield name, part


def _describe(output: object) -> str:
    if isinstance(output, Tensor):
        return str(tuple(output.shape)).replace(",)", ")")
    if isinstance(output, tuple):
        return " and ".join(_describe(one) for one in output)
    if isinstance(output, Pairs):
        return f"{len(output.sender):,} pairs"
    return type(output).__name__.lower()
