"""Reading a graph from an .npz file.

Shape suffixes: N nodes, D features, E edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from netwright.core.errors import BadInput
from netwright.engine.graph import Graph
from netwright.tasks._read import locate, missing

KEYS = ("edges", "y", "train", "val", "test")


def read_graph(file: str, origin: str, classes: int, given: str = "") -> tuple[Graph, Tensor, dict[str, Tensor]]:
    """(graph, labels (N,), the file's own splits) of an .npz file in the data folder. origin: how a user can make it.

    x (N, D), or its CSR pieces x_data, x_indices, x_indptr, x_shape; edges (2, E), in one direction or both; y (N,); and
    the numbers of the nodes of train, val and test. Edges come out sorted and once each, so that one graph has one hash.
    """
    paths = locate((file,), given)
    if paths is None:
        raise missing(file, (file,), f"it is in no folder named to netwright, and has to be made once: {origin}")
    path = paths[0]
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
    except Exception as error:  # whatever numpy, zipfile or the system raises
        raise BadInput(f"{path} can't be read as .npz: {type(error).__name__}: {error}") from None
    lacks = [key for key in KEYS if key not in found] + ([] if {"x", "x_data"} & found.keys() else ["x"])
    if lacks:
        raise BadInput(f"{path} lacks {', '.join(lacks)}; it holds {', '.join(sorted(found)) or 'nothing'}. To make it: {origin}")
    x_ND = _dense(found, path)
    n = len(x_ND)
    index = {key: torch.from_numpy(found[key].astype(np.int64)) for key in KEYS}
    _inside(path, "edges", index["edges"], n, (2, None))
    _inside(path, "y", index["y"], classes, (n,))
    for name in KEYS[2:]:
        _inside(path, name, index[name], n, (None,))
    low, high = index["edges"].min(0).values, index["edges"].max(0).values
    edges_2E = torch.unique(torch.stack([low, high])[:, low < high], dim=1)
    return Graph(x_ND, edges_2E), index["y"], {name: index[name] for name in KEYS[2:]}


def _dense(found: Mapping[str, np.ndarray], path: Path) -> Tensor:
    if "x" in found:
        x = found["x"]
    else:
        try:
            x = np.zeros(tuple(found["x_shape"]), np.float32)
            rows = np.repeat(np.arange(len(x)), np.diff(found["x_indptr"]))
            x[rows, found["x_indices"]] = found["x_data"]
        except (KeyError, IndexError, ValueError) as error:
            raise BadInput(f"{path}: x_data, x_indices, x_indptr and x_shape are no CSR matrix: {error}") from None
    if x.ndim != 2 or not len(x) or not np.isfinite(x).all():
        raise BadInput(f"{path}: x has shape {x.shape}; expected finite features (nodes, features)")
    return torch.from_numpy(x.astype(np.float32))


def _inside(path: Path, name: str, values: Tensor, limit: int, shape: tuple[int | None, ...]) -> None:
    fits = values.dim() == len(shape) and all(want in (None, got) for want, got in zip(shape, values.shape, strict=True))
    if not fits or not values.numel():
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise BadInput(f"{path}: {name} has shape {tuple(values.shape)}; expected ({wanted})")
    if int(values.min()) < 0 or int(values.max()) >= limit:
        raise BadInput(f"{path}: {name} holds {int(values.min())} to {int(values.max())}; expected 0 to {limit - 1}")
