"""Is attention explanation? Scores of test structures by the shipped hybrid and by two nulls.

The nulls are the same model before any training, and the trained one whose attention lacks a part
of its scores. Occlusion needs a prediction for every node, so that a part of the test rows is
drawn.
"""

import numpy as np

from defectkit.bench.measure import shipped

MODEL = "hybrid"
STRUCTURES = 204
PARTS = ("phi", "psi", "content")


def rows(seed: int) -> list[dict]:
    """A row a model and structure; see `explain.survey`.

    Args:
        seed: of the draw of structures, of the untrained weights, and of the run that is taken.
    """
    import pandas as pd
    import torch

    from defectkit import explain

    torch.set_num_threads(1)  # single small graphs gain nothing from a second thread
    hybrid = shipped(MODEL, seed)
    model = hybrid.model
    drawn = np.random.default_rng(seed).permutation(sorted(hybrid.split.test))[:STRUCTURES]
    records = {uid: hybrid.dataset[uid] for uid in drawn}
    graphs = [hybrid.graph(record) for record in records.values()]
    models = {"trained": model, "untrained": explain.untrained(model, hybrid.card, seed)}
    models |= {f"without {part}": explain.without(model, part) for part in PARTS}
    tables = []
    for name, version in models.items():
        if name in ("trained", "untrained"):
            scored = explain.score_table(version, graphs, records)
        else:
            scored = explain.attention_table(version, graphs)
            scored = scored.rename(columns={"weight": "attention"})
        with torch.no_grad():
            predicted = [version(graph).eform.item() for graph in graphs]
        table = explain.survey(scored)
        table.insert(0, "model", name)
        table.insert(1, "predicted", predicted)
        tables.append(table)
    labels = pd.DataFrame(
        {
            "uid": drawn,
            "defecttype": [record.defecttype for record in records.values()],
            "label": [record.eform for record in records.values()],
        }
    ).set_index("uid")
    joined = labels.join(pd.concat(tables)).reset_index()
    return joined.sort_values(["model", "uid"]).round(3).to_dict("records")
