"""The searches for settings that stand behind the models: `configs/tune/*.yaml`, every trial.

They lie in `build/tune/`; one that was interrupted goes on, one that is done is read.
"""

import json

from defectkit.training.config import TuneConfig, load_config
from defectkit.training.pretrained import CONFIGS, ROOT

SEARCHES = CONFIGS / "tune"
FOLDER = ROOT / "build" / "tune"


def rows(seed: int) -> list[dict]:
    """A row a trial: settings tried, and the validation MAE of eform in eV."""
    from defectkit.training.prepared import prepare
    from defectkit.training.tune import tune

    table = []
    for file in sorted(SEARCHES.glob("*.yaml")):
        config = load_config(file, TuneConfig)
        trials = tune(config, prepare(config.run), FOLDER / file.stem, seed)
        table += [
            {
                "model": file.stem,
                "trial": trial["number"],
                "settings": json.dumps({name: trial[name] for name in config.search}),
                "state": trial["state"].lower(),
                "valid_mae": round(trial["value"], 4),
                "seconds": trial["seconds"],
            }
            for trial in trials.to_dict("records")
        ]
    return table
