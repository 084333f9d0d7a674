"""Checkpoints: safetensors for the numbers, JSON for the rest. Nothing here can execute what it reads.

save(model, "run.safetensors", optimizer=optimizer, extra={"step": 100})
extra = load(model, "run.safetensors", optimizer=optimizer)
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.writing import write_whole
from netwright.tensor.modules import resizable

SCHEMA = "1"
HEAD = "head"  # the entry of a file's metadata that holds all that is no tensor
STATE = "optimizer"  # under which name a file keeps what an optimizer knows


def save(
    model: nn.Module, path: str | Path, *, optimizer: torch.optim.Optimizer | None = None, extra: Mapping[str, Any] | None = None
) -> Path:
    """Write a model, tied weights once, and an optimizer's state to one .safetensors file, whole or not at all.

    extra: plain JSON values of your own. Raises BadInput for another ending or values JSON can't hold.
    """
    path = _checked(path)
    tensors, ties = _distinct(model.state_dict())
    packed: dict[str, Any] = {}
    if optimizer is not None:
        packed = optimizer.state_dict()
        for index, values in packed["state"].items():
            for name, value in values.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer/{index}/{name}"] = value.detach().contiguous().clone()
        plain = {str(i): {n: v for n, v in s.items() if not isinstance(v, Tensor)} for i, s in packed["state"].items()}
        packed = {"groups": packed["param_groups"], "plain": plain}
    try:
        head = json.dumps({"ties": ties, STATE: packed, "extra": dict(extra or {})}, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadInput(f"extra= and the optimizer's options have to be plain JSON values: {error}") from None
    return write_whole(path, to_bytes(tensors, {"netwright": SCHEMA, HEAD: head}))


def load(model: nn.Module, path: str | Path, *, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Any]:
    """Read what `save` wrote into a model and an optimizer of the same shapes; returns `extra`.

    Raises BadInput for a file that is not safetensors (a .pt file can execute code and is never opened), that a newer
    netwright wrote, or whose names and shapes are not the model's; the model is then as it was.
    """
    path = _checked(path)
    if not path.is_file():
        raise BadInput(f"there is no file {str(path)!r}")
    try:
        with safe_open(str(path), framework="pt") as file:
            meta = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path.name} is not a whole safetensors file ({error}); netwright opens no other format") from None
    if int(meta.get("netwright", SCHEMA)) > int(SCHEMA):
        raise BadInput(f"{path.name} was written by a newer netwright (schema {meta['netwright']}, this one reads {SCHEMA})")
    head = json.loads(meta.get(HEAD, '{"ties": {}, "optimizer": {}, "extra": {}}'))
    state = {name: t for name, t in tensors.items() if not name.startswith("optimizer/")}
    state |= {name: state[first] for name, first in head["ties"].items() if first in state}
    _same_shapes(model.state_dict(), state, resizable(model), path)
    if optimizer is not None:
        if not head[STATE]:
            raise BadInput(f"{path.name} holds no optimizer state; leave optimizer= out")
        optimizer.load_state_dict(_unpacked(head[STATE], tensors))
    model.load_state_dict(state)
    return head["extra"]


def _checked(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise BadInput(
            f"{path.name!r}: checkpoints are .safetensors files; {path.suffix or 'files without an ending'} are not opened"
        )
    return path


def _distinct(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by their first name, and the other names of those that several share."""
    first: dict[tuple[Any, ...], str] = {}
    tensors: dict[str, Tensor] = {}
    ties: dict[str, str] = {}
    for name, t in state.items():
        if name.startswith("optimizer/"):
            raise BadInput(f"a module is called 'optimizer/': {name}; rename it")
        place = (t.data_ptr(), t.shape, t.stride(), t.dtype) if t.numel() else (name,)
        if place in first:
            ties[name] = first[place]
        else:
            first[place] = name
            tensors[name] = t.detach().contiguous().clone()
    return tensors, ties


def _same_shapes(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], follow: Collection[str], path: Path) -> None:
    missing, extra = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if missing or extra:
        raise BadInput(
            f"{path.name} is of another model: it lacks {missing[:3] or 'nothing'} and also has {extra[:3] or 'nothing'}"
        )
    for name, t in wanted.items():
        if t.shape != given[name].shape and name not in follow:
            raise BadInput(f"{path.name}: {name} has shape {tuple(given[name].shape)}; the model's is {tuple(t.shape)}")


def _unpacked(packed: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {int(i): dict(values) for i, values in packed["plain"].items()}
    for name, t in tensors.items():
        if name.startswith("optimizer/"):
            _, index, entry = name.split("/", 2)
            state.setdefault(int(index), {})[entry] = t
    return {"state": state, "param_groups": packed["groups"]}
