"""What a trained model looks at, and whether that says anything about why it answers as it does.

`attention` reads the weights and says where nodes lie, and `attribution`
measures how the prediction answers to changes of the input; `agreement` compares these scores.
"""

from defectkit.explain.agreement import (
    anisotropy,
    correlations,
    decay_length,
    decay_lengths,
    element_shares,
    expectations,
    group_shares,
    near,
    rank_correlations,
    shares,
    summary,
    survey,
)
from defectkit.explain.attention import (
    attention_maps,
    attention_table,
    combine,
    node_table,
    seen_by,
    untrained,
    without,
)
from defectkit.explain.attribution import gradients, occlusion, relaxation, score_table

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
