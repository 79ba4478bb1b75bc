"""A model seen from outside: what its parts give, and what reaches the read-out."""

import pytest
import torch
from model_cases import MODEL_NAMES, mixed_batch, small_model

from defectkit.explain import attention

pytestmark = pytest.mark.usefixtures("double_precision")


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_every_weight_is_in_one_part(name):
    model = small_model(name)
    table = attention.part_shapes(model, mixed_batch())
    assert table.weights.sum() == sum(p.numel() for p in model.parameters())
    assert table.index.is_unique
    moments = f" and ({mixed_batch().num_nodes})" if name == "hybrid" else ""  # of the atoms
    assert table.output.iloc[-1] == f"(4) and (4){moments}"


def test_parts_come_in_the_order_in_which_they_answer():
    model, batch = small_model("hybrid"), mixed_batch()
    table = attention.part_shapes(model, batch)
    order = [n for n in table.index if "blocks" in n or n in ("inputs", "readout", "heads")]
    blocks = ["local_blocks.0", "local_blocks.1", "global_blocks.0"]
    assert order == ["inputs", *blocks, "readout", "heads"]
    assert table.output["local_blocks.0"] == f"({batch.num_nodes}, 16)"
    assert table.output["pairs"] == f"{batch.pair_index.shape[1]:,} pairs"
    assert table.kind["global_blocks.0"] == "GlobalBlock"


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_node_vectors_are_those_of_the_read_out_and_leave_no_hook(name):
    model, batch = small_model(name), mixed_batch()
    found = attention.node_vectors(model, batch)
    assert found.shape == (batch.num_nodes, SMALL_WIDTH[name])
    readout = model.pooling if hasattr(model, "pooling") else model.readout
    assert not readout._forward_pre_hooks
    assert torch.equal(attention.node_vectors(model, batch), found)


SMALL_WIDTH = {"cgcnn": 12, "alignn": 12, "matformer": 12, "hybrid": 16}
