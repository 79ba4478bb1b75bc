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
    from defectkit.evaluation.metrics import common_rows, scores

    tables = {
        (name, training_seed, place): rows
        for name, seeds in MODELS.items()
        for training_seed in seeds
        for place, rows in _predicted(name, training_seed)
    }
    return [
        {
            "model": name,
            "seed": training_seed,
            "input": place,
            "n_test": len(rows),
            **{key: round(value, 4) for key, value in scores(rows, seed).items()},
        }
        for (name, training_seed, place), rows in common_rows(tables).items()
    ]


def _predicted(name: str, training_seed: int):
    """Both inputs, each with labels and predictions of the test rows."""
    from defectkit.training.inference import load_model, predict
    from defectkit.training.prepared import graphs_of, prepare
    from defectkit.training.pretrained import shipped_run

    run = shipped_run(name, training_seed)
    model, card = load_model(run.folder)
    prepared = prepare(run.config)
    dataset, split = prepared.dataset, prepared.split
    for place in ("relaxed", "unrelaxed"):
        graphs = graphs_of(dataset, replace(card.graph, positions=place))
        predicted = predict(model, graphs, graphs.select(split.test)).add_suffix("_pred")
        yield place, dataset.frame.loc[predicted.index, ["eform", "spin"]].join(predicted)
