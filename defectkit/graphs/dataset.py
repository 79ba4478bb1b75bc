"""Sets of graphs: built once from records, kept in one file, taken out one at a time.

The file is in the safetensors format: numbers behind a JSON header, with nothing in it that a
reader could be made to run. Every key of all graphs lies in one long tensor, integers in the
narrowest type that holds them, and `ptr KEY` says where each graph begins.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from defectkit import DefectkitError
from defectkit.graphs.build import CrystalGraph, GraphConfig, build_graph
from defectkit.structures.record import DefectRecord
from defectkit.structures.writing import checksum, keep

FORMAT = 5  # raise it when the same records and configuration give other graphs
LAST_AXIS = ("edge_index", "angle_index", "pair_index", "lattice_index")  # others grow along axis 0
INTEGERS = (torch.int8, torch.int16, torch.int32, torch.int64)


class GraphDataset(torch.utils.data.Dataset):
    """Graphs of one configuration, for PyG's `DataLoader`; item k is a new `CrystalGraph`.

    Attributes:
        uids: the id of every graph.
        tensors: for every key of a graph all of them end to end, and for `ptr KEY` (M + 1,)
            where each of the M graphs begins and the last one ends.
    """

    def __init__(self, uids: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        self.uids = list(uids)
        self.tensors = dict(tensors)

    @classmethod
    def from_graphs(cls, graphs: Sequence[CrystalGraph]) -> "GraphDataset":
        """Put graphs of one configuration together; `graphs` may be any iterable."""
        uids: list[str] = []
        parts: dict[str, list[Tensor]] = {}
        for graph in graphs:
            uids.append(graph.uid)
            for key in graph.keys():  # noqa: SIM118 - iterating a Data gives pairs
                if key != "uid":
                    parts.setdefault(key, []).append(_narrow(graph[key]))
        tensors: dict[str, Tensor] = {}
        for key in list(parts):
            pieces = parts.pop(key)
            sizes = [piece.shape[_axis(key)] for piece in pieces]
            tensors[f"ptr {key}"] = torch.tensor([0, *sizes]).cumsum(0)
            tensors[key] = torch.cat(pieces, dim=_axis(key))
        return cls(uids, tensors)

    def __len__(self) -> int:
        return len(self.uids)

    def __getitem__(self, number: int) -> CrystalGraph:
        number = range(len(self))[number]
        return CrystalGraph(
            uid=self.uids[number],
            **{key: self._piece(key, number) for key in self.tensors if key[:4] != "ptr "},
        )

    def _piece(self, key: str, number: int) -> Tensor:
        start, stop = self.tensors[f"ptr {key}"][number : number + 2].tolist()
        return _wide(self.tensors[key].narrow(_axis(key), start, stop - start))

    @property
    def n_nodes(self) -> np.ndarray:
        """(M,) how many nodes each graph has."""
        return self.tensors["ptr z"].diff().numpy() if self.uids else np.zeros(0, int)

    def batch(self, numbers: Sequence[int]) -> CrystalGraph:
        """The graphs of these numbers as one: what PyG's `Batch` gives, an order faster.

        For the `collate_fn` of a torch `DataLoader` over `range(len(dataset))`.
        """
        picked = torch.as_tensor(numbers)
        sizes, tensors = {}, {}
        for key in self.tensors:
            if key[:4] == "ptr ":
                continue
            ends = self.tensors[f"ptr {key}"]
            starts, sizes[key] = ends[picked], ends[picked + 1] - ends[picked]
            ranges = zip(starts.tolist(), sizes[key].tolist())
            pieces = [self.tensors[key].narrow(_axis(key), *range_) for range_ in ranges]
            tensors[key] = _wide(torch.cat(pieces, dim=_axis(key)))
        for key in set(LAST_AXIS) & set(tensors):
            counted = sizes["edge_index" if key == "angle_index" else "z"]
            first = counted.cumsum(0) - counted
            tensors[key] += first.repeat_interleave(sizes[key])
        batch = torch.arange(len(picked)).repeat_interleave(sizes["z"])
        uids = [self.uids[number] for number in picked.tolist()]
        return CrystalGraph(uid=uids, batch=batch, **tensors)

    def select(self, uids: Sequence[str]) -> list[int]:
        """The numbers of the graphs of `uids`, in that order; ids without a graph are left out."""
        places = {uid: number for number, uid in enumerate(self.uids)}
        return [places[uid] for uid in uids if uid in places]

    def save(self, path: Path) -> None:
        """Write the file; OSError where it cannot be written."""
        header = json.dumps({"uids": self.uids, "crc": _checksum(self.tensors)})
        # Through memory: the library's own writing to files hides what the system says.
        path.write_bytes(save(self.tensors, {"graphs": header}))

    @classmethod
    def load(cls, path: Path) -> "GraphDataset":
        """Read what `save` wrote; DefectkitError where the file is missing or damaged."""
        try:
            with safe_open(path, "pt") as file:
                header = json.loads((file.metadata() or {}).get("graphs", "{}"))
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, ValueError) as error:
            raise DefectkitError(f"{path} is not a readable file of graphs: {error}.") from error
        if header.get("crc") != _checksum(tensors):
            raise DefectkitError(f"{path} is damaged: its checksum is wrong; delete it.")
        return cls(header["uids"], tensors)


def load_graphs(
    records: Sequence[DefectRecord],
    hosts: Mapping[str, Atoms],
    config: GraphConfig | None = None,
    cache: Path | None = None,
    skip: bool = False,
) -> GraphDataset:
    """The graphs of `records`, read from a file in the folder `cache` where they are there.

    The file's name is a hash over the records, their hosts and the configuration: other
    contents, another file. A damaged file is built anew; where the folder cannot be used, a line
    says so and the graphs are built. Building shows a progress bar after two seconds.

    Args:
        records: one graph each, in this order.
        hosts: the pristine host by name (`Dataset.hosts`), in which defects are found.
        config: the defaults of `GraphConfig` where it is not given.
        cache: a folder; nothing is written where it is not given.
        skip: whether a structure that is no good is left out, with a line that says so.

    Raises DefectkitError, naming the record, for a structure that is no good (`build_graph`) or
    whose host is missing, where it is not to be skipped; with `skip` where none is left.
    """
    config = config or GraphConfig()
    for record in () if skip else records:
        host_of(record, hosts)
    if cache is None:
        return _build(records, hosts, config, skip)
    path = Path(cache) / f"graphs-{_content_hash(records, hosts, config)}.safetensors"
    if os.path.isfile(path):  # false where it may not even be looked for
        try:
            dataset = GraphDataset.load(path)
            if skip or len(dataset) == len(records):
                return dataset
        except DefectkitError as error:
            tqdm.write(f"{error} The graphs are built anew.")
    dataset = _build(records, hosts, config, skip)
    keep(path, dataset.save)
    return dataset


def host_of(record: DefectRecord, hosts: Mapping[str, Atoms]) -> Atoms:
    """The pristine host of a record; DefectkitError where it is not among `hosts`."""
    if record.host not in hosts:
        raise DefectkitError(
            f"{record.uid}: there is no pristine {record.host} to find the defect in; "
            "add it to the hosts or leave the rows of this host out."
        )
    return hosts[record.host]


def _build(
    records: Sequence[DefectRecord], hosts: Mapping[str, Atoms], config: GraphConfig, skip: bool
) -> GraphDataset:
    faults = []

    def graphs() -> Iterator[CrystalGraph]:
        for record in tqdm(records, desc="graphs", unit="graph", delay=2, leave=False):
            try:
                yield build_graph(record, config, host_of(record, hosts))
            except DefectkitError as error:
                if not skip:
                    raise
                faults.append(str(error))

    dataset = GraphDataset.from_graphs(graphs())
    if faults and not len(dataset):
        raise DefectkitError(f"None of {len(records):,} structures has a graph. {faults[0]}")
    if faults:
        tqdm.write(f"{len(faults)} of {len(records):,} structures are left out. {faults[0]}")
    return dataset


def _content_hash(
    records: Sequence[DefectRecord], hosts: Mapping[str, Atoms], config: GraphConfig
) -> str:
    values = asdict(config)
    for name, usual in (("nodes", "atoms"), ("pair_nodes", "all")):
        if values[name] == usual:  # files that were written before there was a choice stay good
            del values[name]
    digest = hashlib.sha256(json.dumps([FORMAT, values]).encode())
    for name in sorted({record.host for record in records} & set(hosts)):
        digest.update(name.encode())
        _add_atoms(digest, hosts[name])
    for record in records:
        digest.update(f"\0{record.uid}\0{record.host}\0".encode())
        _add_atoms(digest, record.atoms)
        if record.unrelaxed is not None:
            digest.update(record.unrelaxed.astype("<f8").tobytes())
        if record.site_magmoms is not None:
            digest.update(record.site_magmoms.astype("<f8").tobytes())
        digest.update(np.array([record.eform, record.spin], "<f8").tobytes())
    return digest.hexdigest()[:20]


def _add_atoms(digest: "hashlib._Hash", atoms: Atoms) -> None:
    digest.update(atoms.numbers.astype("<i8").tobytes() + bytes(atoms.pbc.tolist()))
    digest.update(atoms.positions.astype("<f8").tobytes() + atoms.cell.array.tobytes())


def _axis(key: str) -> int:
    return 1 if key in LAST_AXIS else 0


def _wide(tensor: Tensor) -> Tensor:
    """A copy, of integers as int64, which indices must be."""
    return tensor.to(torch.int64 if tensor.dtype in INTEGERS else tensor.dtype, copy=True)


def _narrow(tensor: Tensor) -> Tensor:
    """The tensor in the narrowest integer type that holds it; others as they are."""
    if tensor.dtype != torch.int64:
        return tensor
    low, high = tensor.aminmax() if tensor.numel() else (0, 0)
    fits = (t for t in INTEGERS if torch.iinfo(t).min <= low and high <= torch.iinfo(t).max)
    return tensor.to(next(fits))


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """`checksum` of tensors."""
    return checksum({key: tensor.numpy() for key, tensor in tensors.items()})
