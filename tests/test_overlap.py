"""Rows that splits share are counted, and said before a study and in its result."""

from __future__ import annotations

from pathlib import Path

import mine
import pytest
import torch
from torch import Tensor

from netwright.bench.overlap import shared_rows
from netwright.bench.study import Study


def test_the_same_tensors_are_said_before_and_after(tmp_path: Path) -> None:
    same = mine.points("train")
    study = Study(mine.task(train=same, val=same, test=same), ["default"], seeds=1, trials=1, steps=2, out=tmp_path)
    lines = [f"64 of 64 rows of {two} are also rows of {one} (seed 0)" for one, two in (("train", "val"), ("train", "test"))]
    assert set(lines) <= set(study.outlook()) and set(lines) <= set(study.run().notes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.float64])
def test_shared_rows_are_counted(dtype: torch.dtype) -> None:
    def data(seed: int) -> dict[str, tuple[Tensor, Tensor]]:
        found = mine.splits()
        x, y = found["test"]
        found["test"] = (torch.cat([found["train"][0][:3], x[:-5], found["val"][0][:2].clone()]), y)
        scaled = {key: ((x * 1000).round().to(dtype), y) for key, (x, y) in found.items()}
        return scaled

    def model() -> torch.nn.Module:
        return torch.nn.Sequential(Floats(), mine.Net())

    made = mine.task(data=data, model=model, train=..., val=..., test=...)
    assert shared_rows(made) == [
        "3 of 64 rows of test are also rows of train (seed 0)",
        "2 of 64 rows of test are also rows of val (seed 0)",
    ]


class Floats(torch.nn.Module):
    """Numbers of any type as float32."""

    def forward(self, x: Tensor) -> Tensor:
        return x.float() / 1000


def test_zeros_of_either_sign_are_equal_and_apart_is_apart() -> None:
    assert not shared_rows(mine.task())
    zero, y = torch.zeros(64, mine.INPUTS), mine.points("train")[1]
    lines = shared_rows(mine.task(train=(zero, y), val=(-zero, y)))
    assert lines == ["64 of 64 rows of val are also rows of train (seed 0)"]
