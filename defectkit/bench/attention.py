"""Is attention explanation? Scores of test structures by the shipped hybrid and by two nulls.

Beside the trained model stand the same model before any training, and the trained one whose
attention lacks a part of its scores. Occlusion takes a prediction a node, so that structures are
drawn from the test part.
"""

import numpy as np

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
    from defectkit.graphs.build import build_graph
    from defectkit.training.inference import load_model
    from defectkit.training.prepared import prepare
    from defectkit.training.pretrained import shipped_run

    torch.set_num_threads(1)  # single small graphs gain nothing from a second thread
    run = shipped_run(MODEL, seed)
    model, card = load_model(run.folder)
    prepared = prepare(run.config)
    dataset, split = prepared.dataset, prepared.split
    drawn = np.random.default_rng(seed).permutation(sorted(split.test))[:STRUCTURES]
    records = {uid: dataset[uid] for uid in drawn}
    graphs = [
        build_graph(record, card.graph, dataset.hosts[record.host]) for record in records.values()
    ]
    models = {"trained": model, "untrained": explain.untrained(model, card, seed)}
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
    known = pd.DataFrame(
        {
            "uid": drawn,
            "defecttype": [record.defecttype for record in records.values()],
            "label": [record.eform for record in records.values()],
        }
    ).set_index("uid")
    joined = known.join(pd.concat(tables)).reset_index()
    return joined.sort_values(["model", "uid"]).round(3).to_dict("records")
