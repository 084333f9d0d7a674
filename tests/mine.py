"""A user's model and data, and the arguments of a task made of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import netwright
from netwright.engine.task import Task
from netwright.tensor.streams import generator

INPUTS, ROWS = 4, 64


class Net(nn.Module):
    """A user's model, with an activation to swap."""

    def __init__(self, inputs: int = INPUTS, outputs: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, 8), nn.GELU(), nn.Linear(8, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def points(name: str, rows: int = ROWS, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(rows, INPUTS, generator=generator(seed, "draw", name))
    return x, x[:, :1].sin()


def loss(out: Tensor, y: Tensor) -> Tensor:
    return (out - y).square().mean()


def error(out: Tensor, y: Tensor) -> float:
    return (out - y).abs().mean().item()


def splits() -> dict[str, Any]:
    return {key: points(key) for key in ("train", "val", "test")}


def good(**changes: Any) -> dict[str, Any]:
    """Arguments of a task that is right, with changes; a change to `...` leaves the argument out."""
    arguments = {
        "model": Net,
        **splits(),
        "loss": loss,
        "metric": error,
        "higher_is_better": False,
        "worst": 1.0,
        "delta": 0.01,
        "steps": 20,
        "batch": 16,
        "lr": (1e-3, 1e-1),
        "slot": nn.GELU,
    }
    return {key: value for key, value in (arguments | changes).items() if value is not ...}


def task(**changes: Any) -> Task:
    return netwright.task("mine", **good(**changes))
