"""Is a formation energy extensive? What each read-out says of the same defect in a larger cell.

The runs are those of the study `ablation`, which trained the hybrid model with every read-out on
the cells of the demo as they are. Its validation rows are set into larger cells of pristine host
(`structures.transforms.PadSupercell`), which keeps their energy: what a prediction then changes by
belongs to the read-out, not to the defect.
"""

import numpy as np

from defectkit.bench import studies

EXTRA = 2  # host cells that are added in both directions of the plane
VARIANTS = {"sum": "sum", "mean": "mean", "defect": "defect", "full": "gated"}


def rows(seed: int) -> list[dict]:
    """A row a read-out and training seed.

    Columns: `n` structures, mean number of atoms and mean absolute error (eV) in the cells of the
    demo and in the larger ones, mean change of the prediction (eV), and the `slope` of the signed
    error against the number of atoms with its interval over hosts (eV per atom).

    Args:
        seed: of the bootstrap.
    """
    from defectkit.graphs.dataset import load_graphs
    from defectkit.training.config import StudyConfig, load_config
    from defectkit.training.prepared import prepare

    study = load_config(studies.STUDIES / "ablation.yaml", StudyConfig)
    prepared = prepare(study.run)
    dataset, split = prepared.dataset, prepared.split
    cells = [
        load_graphs(records, dataset.hosts, study.run.graph)
        for records in _in_both_cells(dataset, split.valid)
    ]
    table = []
    for _, variant, training_seed, config, folder in studies.jobs_of(
        study, studies.FOLDER / "ablation"
    ):
        if variant in VARIANTS:
            run = studies.trained(folder, config, training_seed)
            found = _judged(run, dataset, cells, seed)
            rounded = {key: round(value, 4) for key, value in found.items()}
            table.append({"readout": VARIANTS[variant], "seed": training_seed, **rounded})
    return table


def _in_both_cells(dataset, uids) -> tuple[tuple, ...]:
    """Records as they are, and the same in larger cells, where that keeps their energy."""
    from defectkit.structures.transforms import LabelNotKept, PadSupercell

    pad, pairs = PadSupercell(dataset.hosts, (EXTRA, EXTRA)), []
    for uid in uids:
        try:
            pairs.append((dataset[uid], pad(dataset[uid], np.random.default_rng(0))))
        except LabelNotKept:
            continue
    return tuple(zip(*pairs))


def _judged(run, dataset, cells: list, seed: int) -> dict:
    import pandas as pd

    from defectkit.evaluation.breakdown import size_slope
    from defectkit.training.inference import load_model, predict

    model, _ = load_model(run.folder)
    small, large = (predict(model, graphs).assign(natoms=_real_atoms(graphs)) for graphs in cells)
    labels = dataset.frame.loc[small.index]
    both = pd.concat([small, large])
    error = both.eform - pd.concat([labels.eform] * 2)
    fit = size_slope(error, both.natoms, pd.concat([labels.host] * 2), seed)
    return {
        "n": len(small),
        "natoms": small.natoms.mean(),
        "natoms_larger": large.natoms.mean(),
        "eform_mae": (small.eform - labels.eform).abs().mean(),
        "eform_mae_larger": (large.eform - labels.eform).abs().mean(),
        "change": (large.eform - small.eform).mean(),
        **{key: fit[key] for key in ("slope", "lo", "hi")},
    }


def _real_atoms(graphs) -> list[int]:
    return [int((graph.z > 0).sum()) for graph in graphs]
