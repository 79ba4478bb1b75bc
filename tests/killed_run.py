"""Trains a run in child processes that are killed at random moments until it is finished.

    python killed_run.py FOLDER SECONDS

Reads a data set and its split from FOLDER/rows.pickle. Importing takes longer than training, so
that children are forks of a process that has all. Prints how many were killed.
"""

import os
import pickle
import random
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from run_cases import CGCNN

from defectkit.config import with_values
from defectkit.training.runs import Run, graphs_of, train

CONFIG = with_values(
    replace(CGCNN, epochs=16, batch_size=4),
    {"augment": ["strain"], "optimiser.name": "muon", "data.train_rows": 12},
)
FASTEST, SLOWEST = 0.02, 1.2  # s until a child is killed


def main(folder: Path, seconds: float) -> None:
    torch.set_num_threads(1)
    few, split = pickle.loads((folder / "rows.pickle").read_bytes())
    graphs_of(few, CONFIG.graph)  # in memory, for every child
    train(CONFIG, few, split, folder / "whole", progress=False)
    rng, killed, end = random.Random(0), 0, time.monotonic() + seconds
    while not Run(folder / "killed").finished:
        child = os.fork()
        if not child:
            train(CONFIG, few, split, folder / "killed", progress=False)
            os._exit(0)
        if time.monotonic() < end:
            time.sleep(rng.uniform(FASTEST, SLOWEST))
            os.kill(child, signal.SIGKILL)
            killed += 1
        os.waitpid(child, 0)
        if killed > 200:
            break
    print(killed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
