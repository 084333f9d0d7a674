"""Readers of data on disk: image folders in the hub's parquet layout, and text. What is read is kept as tensors.

Data are looked for in the folder a user names, else in the folder the environment variable NETWRIGHT_DATA names, else
on the Hugging Face hub through the package `datasets`. A folder holds `<name>/train-00000-of-00001.parquet` and
`<name>/test-00000-of-00001.parquet`, or `<name>.txt`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from netwright.core.errors import BadInput

VARIABLE = "NETWRIGHT_DATA"
#: Whether the hub may be asked for what no folder holds.
HUB: ContextVar[bool] = ContextVar("HUB", default=True)
#: Sets the hub couldn't give, and why: it is asked once a process, for a failure takes half a minute.
_refused: dict[str, str] = {}
#: Names that image columns have on the hub, in the order they are looked for.
IMAGE_COLUMNS = ("image", "img")


Pool = TypeVar("Pool")


def kept(read: Callable[[str], Pool]) -> Callable[[str], Pool]:
    """read(folder), remembered as long as NETWRIGHT_DATA stays what it is."""
    remembered = cache(lambda folder, environment: read(folder))
    return lambda folder: remembered(folder, os.environ.get(VARIABLE))


def shards(name: str) -> tuple[str, str]:
    """The two files of an image set, relative to the data folder: train and test."""
    return f"{name}/train-00000-of-00001.parquet", f"{name}/test-00000-of-00001.parquet"


def locate(files: Sequence[str], given: str = "") -> list[Path] | None:
    """The files in the folder `given`, else in that of NETWRIGHT_DATA; None where that isn't set or lacks one.

    Raises BadInput where the folder a user named lacks one of them.
    """
    if given:
        found = [Path(given).expanduser() / file for file in files]
        if missing := [str(path) for path in found if not path.is_file()]:
            raise BadInput(f"data={given!r} lacks {' and '.join(missing)}; name the folder that holds {' and '.join(files)}")
        return found
    folder = os.environ.get(VARIABLE)
    if not folder:
        return None
    found = [Path(folder).expanduser() / file for file in files]
    return found if all(path.is_file() for path in found) else None


def missing(what: str, files: Sequence[str], cause: str) -> BadInput:
    """The error for data that can't be found: why not, and how to provide them."""
    return BadInput(
        f'{what} can\'t be read: {cause}. Put {" and ".join(files)} into one folder, and name it with data="folder" '
        f"or in the environment variable {VARIABLE} (now {os.environ.get(VARIABLE) or 'not set'})"
    )


def images(name: str, hub: str, channels: int, size: int, classes: int, given: str = "") -> tuple[Tensor, Tensor, int]:
    """Training and then test images: x (N, channels, size, size) uint8, y (N,) int64, and how many of them train.

    name: the folder of the set; hub: its name on the Hugging Face hub. Raises BadInput where neither can be read.
    """
    files = shards(name)
    paths = locate(files, given)
    if paths is None:
        tables = [(f"{hub} ({split})", _from_hub(hub, split, name, files)) for split in ("train", "test")]
    else:
        tables = [(str(path), _read_parquet(path)) for path in paths]
    parts = [_decode(table, where, channels, size, classes) for where, table in tables]
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]), len(parts[0][0])


def text(file: str, origin: str, given: str = "") -> str:
    """The text of a UTF-8 file of the data folder. origin: where a user can get it."""
    paths = locate((file,), given)
    if paths is None:
        raise missing(file, (file,), f"it is in no folder named to netwright, and has to be fetched once from {origin}")
    try:
        return paths[0].read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{paths[0]} is not UTF-8 text: {error}") from None


def _read_parquet(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise BadInput(f"reading {path} needs pyarrow; install netwright[data]") from None
    try:
        return pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise BadInput(f"{path} can't be read as parquet: {error}") from None


def _from_hub(hub: str, split: str, name: str, files: Sequence[str]) -> Any:
    if not HUB.get() or os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        raise missing(name, files, "no folder holds it, and the hub must not be asked")
    try:
        import datasets
    except ImportError:
        raise missing(name, files, "no folder holds it, and the hub needs netwright[data]") from None
    if hub not in _refused:
        try:
            return datasets.load_dataset(hub, split=split).with_format("arrow")[:]
        except Exception as error:  # whatever the network, the hub or its cache raises
            _refused[hub] = f"{type(error).__name__}: {error}"
    raise missing(name, files, f"no folder holds it, and the hub's {hub} failed ({_refused[hub]})")


def _decode(table: Any, where: str, channels: int, size: int, classes: int) -> tuple[Tensor, Tensor]:
    """Images (N, channels, size, size) uint8 and labels (N,) of a table with the columns image (or img) and label."""
    column = next((c for c in IMAGE_COLUMNS if c in table.column_names), None)
    if column is None or "label" not in table.column_names:
        raise BadInput(
            f"{where} has the columns {', '.join(table.column_names)}; expected label and one of {', '.join(IMAGE_COLUMNS)}"
        )
    if not table.num_rows:
        raise BadInput(f"{where} has no rows")
    shape = (size, size) if channels == 1 else (size, size, channels)
    pixels = np.empty((table.num_rows, *shape), dtype=np.uint8)
    for row, cell in enumerate(table.column(column).to_pylist()):
        pixels[row] = _pixels(cell, shape, f"{where}, row {row}")
    labels = table.column("label").to_pylist()
    for row, label in enumerate(labels):
        if not isinstance(label, int) or not 0 <= label < classes:
            raise BadInput(f"{where}, row {row}: label {label!r}; expected a whole number from 0 to {classes - 1}")
    x = torch.from_numpy(pixels)
    return x[:, None] if channels == 1 else x.permute(0, 3, 1, 2), torch.tensor(labels)


def _pixels(cell: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """One image of a cell {bytes, path}."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise BadInput("decoding images needs Pillow; install netwright[data]") from None
    raw = cell.get("bytes") if isinstance(cell, dict) else None
    if not raw:
        raise BadInput(f"{where}: the image holds no bytes; expected {{bytes, path}} with an encoded PNG or JPEG")
    try:
        image = Image.open(io.BytesIO(raw))
        pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("L" if len(shape) == 2 else "RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise BadInput(f"{where}: not an image Pillow can decode: {error}") from None
    if pixels.shape != shape:
        raise BadInput(f"{where}: an image of shape {pixels.shape}; expected {shape}")
    return pixels
