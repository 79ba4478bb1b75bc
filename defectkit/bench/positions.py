"""One model for both tasks? Each shipped hybrid on relaxed and on unrelaxed test structures.

The rows are those of the test part whose starting structure can be read.
"""

from dataclasses import replace

from defectkit.bench.models import SEEDS

# The last learned from every row in both positions, half as often from each.
MODELS = {"hybrid": SEEDS, "hybrid-unrelaxed": SEEDS, "hybrid-both": SEEDS[:1]}


def rows(seed: int) -> list[dict]:
    """A row a model, training seed and input.

    Args:
        seed: of the bootstrap.
    """
    return [
        row
        for name, seeds in MODELS.items()
        for training_seed in seeds
        for row in _of(name, training_seed, seed)
    ]


def _of(name: str, training_seed: int, seed: int) -> list[dict]:
    from defectkit.checkpoint import load_model
    from defectkit.evaluate import scores
    from defectkit.predict import predict
    from defectkit.shipped import shipped_run
    from defectkit.training.runs import graphs_of, load_data

    run = shipped_run(name, training_seed)
    model, card = load_model(run.folder)
    dataset, split = load_data(run.config)
    start = graphs_of(dataset, replace(card.graph, positions="unrelaxed"))
    tested = [start.uids[k] for k in start.select(split.test)]
    table = []
    for place in ("relaxed", "unrelaxed"):
        graphs = graphs_of(dataset, replace(card.graph, positions=place))
        predicted = predict(model, graphs, graphs.select(tested)).add_suffix("_pred")
        labels = dataset.frame.loc[predicted.index, ["eform", "spin"]]
        found = scores(labels.join(predicted), seed)
        table.append(
            {
                "model": name,
                "seed": training_seed,
                "input": place,
                "n_test": len(predicted),
                **{key: round(value, 4) for key, value in found.items()},
            }
        )
    return table
