"""The smallest runs worth training, for the tests of all that trains."""

from defectkit.graphs.build import GraphConfig
from defectkit.training.config import DataConfig, ModelConfig, RunConfig

CGCNN = RunConfig(
    ModelConfig("cgcnn", {"hidden": 8, "layers": 1, "radial": 8, "readout": 8}),
    graph=GraphConfig(cutoff=3.5, angle_cutoff=None, all_pairs=False),
    features=("elemental",),
    epochs=2,
)
HYBRID = RunConfig(
    ModelConfig("hybrid", {"hidden": 8, "attention_heads": 2}),
    DataConfig(train_rows=12),
    GraphConfig(cutoff=4.0, angle_cutoff=None),
    ("elemental",),
    epochs=1,
)
