"""The process in which a notebook of somebody else runs, and the words it speaks with its grader.

It runs cells, and hands over values and what functions return: as data only, a line of JSON each.
Nothing that it says is believed to be a verdict, and nothing of it is unpickled or run.

    python -m defectkit.teach.worker REQUESTS ANSWERS

`REQUESTS` and `ANSWERS` are file descriptors.
"""

import base64
import json
import math
import os
import sys
from contextlib import suppress

import numpy as np
import pandas as pd
import torch
from IPython.core.interactiveshell import InteractiveShell

from defectkit.teach.answers import Fault
from defectkit.teach.checks import at_most, call

MAX_BYTES = 50_000_000  # of one answer
MEMORY, FILE_SIZE = 16 * 2**30, 2**30  # bytes: address space, and the largest file
DEEPEST = 6
NUMBERS = {f"{kind}{size}" for kind in ("int", "float", "uint") for size in (8, 16, 32, 64)}
DTYPES = (NUMBERS | {"bool"}) - {"float8"}


def encode(value: object, depth: int = 0) -> dict:
    """A value as JSON can hold it; of what it cannot hold, the name of its class."""
    if depth > DEEPEST:
        return {"other": "nesting"}
    if isinstance(value, np.generic):
        value = value.item()
    if value is ...:
        return {"dots": True}
    if value is None or isinstance(value, bool | int | float | str):
        small = not isinstance(value, int) or abs(value) < 2**63
        return {"plain": value} if small else {"plain": math.inf}
    if isinstance(value, torch.Tensor):
        return {"tensor": encode(value.detach().cpu().numpy(), depth + 1)}
    if isinstance(value, np.ndarray) and str(value.dtype) in DTYPES and value.nbytes < MAX_BYTES:
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"array": data, "dtype": str(value.dtype), "shape": list(value.shape)}
    if isinstance(value, np.ndarray | pd.Index) and value.size < 10_000:
        return {"list": [encode(one, depth + 1) for one in value.tolist()]}
    if isinstance(value, pd.Series):
        parts = encode(value.to_numpy(), depth + 1), encode(list(value.index), depth + 1)
        return {"series": parts[0], "index": parts[1]}
    if isinstance(value, pd.DataFrame) and value.columns.is_unique:
        columns = {str(name): encode(list(value[name]), depth + 1) for name in value}
        return {"table": columns, "index": encode(list(value.index), depth + 1)}
    for name, kind in (("tuple", tuple), ("list", list), ("set", set | frozenset)):
        if isinstance(value, kind) and len(value) < 200_000:
            return {name: [encode(one, depth + 1) for one in value]}
    if isinstance(value, dict) and len(value) < 10_000:
        return {"dict": [[encode(k, depth + 1), encode(v, depth + 1)] for k, v in value.items()]}
    return {"function": True} if callable(value) else {"other": type(value).__name__}


def decode(data: dict) -> object:
    """The value that `encode` wrote; functions are left to the caller, as None.

    Raises ValueError, LookupError, TypeError or AttributeError for anything else.
    """
    if "dots" in data:
        return ...
    if "plain" in data:
        value = data["plain"]
        if not (value is None or isinstance(value, bool | int | float | str)):
            raise ValueError("no plain value")
        return value
    if "tensor" in data:
        return torch.as_tensor(np.array(decode(data["tensor"])))
    if "array" in data:
        if data["dtype"] not in DTYPES:
            raise ValueError("no such numbers")
        raw = np.frombuffer(base64.b64decode(data["array"]), data["dtype"])
        return raw.reshape(data["shape"]).copy()
    if "series" in data:
        return pd.Series(decode(data["series"]), index=decode(data["index"]))
    if "table" in data:
        columns = {name: decode(column) for name, column in data["table"].items()}
        return pd.DataFrame(columns, index=decode(data["index"]))
    for name, kind in (("tuple", tuple), ("list", list), ("set", set)):
        if name in data:
            return kind(decode(one) for one in data[name])
    if "dict" in data:
        return {decode(key): decode(value) for key, value in data["dict"]}
    if "function" in data:
        return None
    return type(str(data["other"]), (), {})()


def serve(requests: int, answers: int) -> None:
    """Answer requests, a line of JSON each, until there are no more."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
    shell = InteractiveShell.instance()
    with os.fdopen(requests) as incoming, os.fdopen(answers, "w") as outgoing:
        for line in incoming:
            request = json.loads(line)
            try:
                said = _answer(shell, request)
                text = json.dumps(said)
            except BaseException as error:  # of the notebook's making, whatever it is
                text = json.dumps({"failed": type(error).__name__})
            outgoing.write(f'{{"id": {json.dumps(request["id"])}, "said": {text}}}\n')
            outgoing.flush()


def _answer(shell: InteractiveShell, request: dict) -> dict:
    if "run" in request:
        with at_most(request["seconds"]):
            done = shell.run_cell(request["run"], store_history=False)
        error = done.error_before_exec or done.error_in_exec
        return {"failed": type(error).__name__} if error else {"ran": True}
    value = shell.ev(request["value"])
    if "arguments" not in request:
        return {"value": encode(value)}
    arguments = [decode(one) for one in request["arguments"]]
    try:
        found = call(value, request["names"], request["takes"], arguments)
    except Fault as fault:
        return {"fault": str(fault)}
    return {"value": encode(found)}


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
