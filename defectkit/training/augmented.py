"""Training structures, transformed anew in every epoch, and a count of what could not be."""

from dataclasses import replace

import numpy as np
from lightning.pytorch.callbacks import Callback
from torch_geometric.data import Batch

from defectkit import DefectkitError
from defectkit.data.dataset import Dataset
from defectkit.graphs.build import CrystalGraph, build_graph
from defectkit.graphs.dataset import GraphDataset
from defectkit.structures import transforms
from defectkit.structures.record import DefectRecord
from defectkit.training.config import RunConfig

CHANGED, REFUSED, REASON = "changed", "refused", "first_reason"


class Augmented(Callback):
    """Numbers of training structures -> a batch of newly transformed ones.

    A transform that refuses a structure, because its label would not be kept or because the
    record lacks what the transform needs, passes it on as it was. What a structure is drawn to
    be depends on the seed, the epoch and its number alone.

    Args:
        config: of the run.
        dataset: where the records are.
        training: their graphs, relaxed ones first where `config.also_unrelaxed`.
        relaxed: how many of these have the positions that `config.graph` names.
        seed: of the draws.

    Attributes:
        tally: by transform, how many draws changed a structure, how many were refused, and why
            the first one was; "graph" counts transformed structures of which no graph could be
            built.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        training: GraphDataset,
        relaxed: int,
        seed: int,
    ):
        every = {
            "pad": transforms.PadSupercell(dataset.hosts),
            "noise": transforms.CoordinateNoise(),
            "strain": transforms.AffineStrain(),
            "partly-relaxed": transforms.PartlyRelaxed(),
            "elastic": transforms.ElasticField(),
        }
        self.transforms = {name: every[name] for name in config.augment}
        self.config, self.dataset, self.training = config.graph, dataset, training
        self.relaxed, self.seed = relaxed, seed
        self.tally = {
            name: {CHANGED: 0, REFUSED: 0, REASON: ""} for name in [*config.augment, "graph"]
        }

    def __call__(self, numbers: list[int]) -> Batch:
        """The batch of these numbers."""
        return Batch.from_data_list([self._one(number) for number in numbers])

    def setup(self, trainer, pl_module, stage: str) -> None:
        """Lightning says here who knows the epoch."""
        self.trainer = trainer

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        """A transform that changes nothing at all is a wrong setting."""
        for name, found in self.tally.items():
            enough = found[REFUSED] >= len(self.training)
            if name in self.transforms and enough and not found[CHANGED]:
                raise DefectkitError(
                    f"augment '{name}' left every training structure as it was. {found[REASON]} "
                    f"Leave '{name}' out of augment."
                )

    def state_dict(self) -> dict:
        """For a run that is resumed."""
        return {"tally": self.tally}

    def load_state_dict(self, state_dict: dict) -> None:
        """Likewise."""
        self.tally = state_dict["tally"]

    def _one(self, number: int) -> CrystalGraph:
        record = self.dataset[self.training.uids[number]]
        rng = np.random.default_rng([self.seed, self.trainer.current_epoch, number])
        for name, transform in self.transforms.items():
            try:
                changed = transform(record, rng)
            except DefectkitError as error:
                self._refuse(name, error)
            else:
                self.tally[name][CHANGED] += _differ(record, changed)
                record = changed
        config = self.config
        if number >= self.relaxed:
            config = replace(config, positions="unrelaxed")
        try:
            graph = build_graph(record, config, self.dataset.hosts[record.host])
        except DefectkitError as error:
            self._refuse("graph", error)
            return self.training[number]
        self.tally["graph"][CHANGED] += 1
        return graph

    def _refuse(self, name: str, error: DefectkitError) -> None:
        found = self.tally[name]
        found[REFUSED] += 1
        found[REASON] = found[REASON] or str(error)


def _differ(before: DefectRecord, after: DefectRecord) -> bool:
    """Whether a transform did anything."""
    if len(before.atoms) != len(after.atoms):
        return True
    return not (
        np.array_equal(before.atoms.positions, after.atoms.positions)
        and np.array_equal(before.atoms.cell.array, after.atoms.cell.array)
    )
