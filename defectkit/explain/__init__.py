"""What a trained model looks at, and whether that says anything about why it answers as it does.

`nodes` says where every node lies seen from the defect, `attention` reads the weights, and
`attribution` asks the model itself by changing its input; `agreement` sets them side by side, and
`survey` keeps of it one row a structure.
"""

from defectkit.explain.agreement import (
    anisotropy,
    decay_length,
    decay_lengths,
    element_shares,
    group_shares,
    rank_correlations,
    shares,
    summary,
)
from defectkit.explain.attention import (
    attention_maps,
    attention_table,
    combine,
    seen_by,
    untrained,
    without,
)
from defectkit.explain.attribution import gradients, occlusion, relaxation, score_table
from defectkit.explain.nodes import node_table
from defectkit.explain.survey import correlations, expectations, near, survey

__all__ = [
    "anisotropy",
    "attention_maps",
    "attention_table",
    "combine",
    "correlations",
    "decay_length",
    "decay_lengths",
    "element_shares",
    "expectations",
    "gradients",
    "group_shares",
    "near",
    "node_table",
    "occlusion",
    "rank_correlations",
    "relaxation",
    "score_table",
    "seen_by",
    "shares",
    "summary",
    "survey",
    "untrained",
    "without",
]
