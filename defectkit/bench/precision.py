"""Does the hybrid need 32 bits? The shipped one on the CPU with floats of 32 bits, 16 and 8.

FP32    weights and arithmetic as trained.
bf16    `torch.autocast`: matrix products in bfloat16. Lengths stay in FP32, which is why the
        weights are not cast: numbers between 8 and 16 Å would come in steps of 0.06 Å.
INT8    dynamic quantisation: weights of the linear layers as bytes, their inputs likewise on the
        fly. Filters of the radial basis are no plain linear layers and stay as they are.

Every precision is measured in a process of its own with one thread, on all test rows.
"""

import io
import warnings

import pandas as pd

from defectkit.bench import in_own_process, peak_mb, shortest_ms

PRECISIONS = ("FP32", "bf16", "INT8")
ALONE, TOGETHER = 8, 64  # structures that are timed


def rows(seed: int) -> list[dict]:
    """A row a precision, see `compared`.

    Args:
        seed: of the bootstrap.
    """
    from defectkit.graphs.dataset import GraphDataset
    from defectkit.training.inference import load_model
    from defectkit.training.prepared import graphs_of, prepare
    from defectkit.training.pretrained import shipped_run

    run = shipped_run("hybrid")
    labels = run.part("test")[["eform", "spin"]]
    graphs = graphs_of(prepare(run.config).dataset, run.config.graph)
    tested = GraphDataset.from_graphs(graphs[k] for k in graphs.select(labels.index))
    return compared(load_model(run.folder)[0], tested, labels, seed)


def compared(model, graphs, labels: pd.DataFrame, seed: int = 0) -> list[dict]:
    """Errors and costs of a model in every one of `PRECISIONS`.

    Args:
        model: of `models.MODELS`, with 32 bits.
        graphs: `GraphDataset` of the test rows.
        labels: columns eform (eV) and spin (μB), by uid.
        seed: of the bootstrap.

    Returns:
        For each: precision, n_test, eform_mae with its interval, spin_mae; `change` of eform_mae
        from FP32 with `change_lo` to `change_hi`, a paired bootstrap (95 %); and what `measure`
        finds.
    """
    from defectkit.evaluation.metrics import compare, scores

    table = []
    for precision in PRECISIONS:
        predicted, costs = in_own_process(measure, model, graphs, precision)
        judged = labels.join(predicted.add_suffix("_pred"))
        if precision == PRECISIONS[0]:
            reference = judged
        found, change = scores(judged, seed), compare(judged, reference, seed=seed)
        errors = {name: found[name] for name in ("eform_mae", "eform_mae_lo", "eform_mae_hi")}
        errors |= {"spin_mae": found["spin_mae"], "change": change["difference"]}
        errors |= {"change_lo": change["lo"], "change_hi": change["hi"]}
        table.append(
            {
                "precision": precision,
                "n_test": len(judged),
                **{name: round(value, 5) for name, value in errors.items()},
                **costs,
            }
        )
    return table


def measure(model, graphs, precision: str) -> tuple[pd.DataFrame, dict[str, float]]:
    """Predictions of all `graphs`, by uid, and what they cost in this process with one thread.

    `infer_ms_b1` and `infer_ms_b64` are milliseconds a structure, alone and 64 at a time, the
    graphs being there already; `weights_kb` is the size of the weights as `torch.save` writes them,
    which is about what they take in memory; `peak_mb` is the memory of the process.
    """
    import torch

    from defectkit.training.inference import predict

    torch.set_num_threads(1)
    if precision == "INT8":
        model = quantised(model)
    alone = [graphs.batch([number]) for number in range(min(ALONE, len(graphs)))]
    together = graphs.batch(range(min(TOGETHER, len(graphs))))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        predicted = predict(model, graphs)
        costs = {
            "infer_ms_b1": shortest_ms(lambda: [model(one) for one in alone], len(alone)),
            "infer_ms_b64": shortest_ms(lambda: model(together), len(together.uid)),
        }
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    costs |= {"weights_kb": round(file.tell() / 1e3), "peak_mb": round(peak_mb())}
    return predicted, costs


def quantised(model):
    """A copy of the model whose linear layers compute with bytes.

    torch plans to hand this over to torchao, which the kit does not need otherwise, and says so in
    warnings that are no news to the reader of the table.
    """
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, torch.qint8)
