"""What the toy tasks share: problems over small inputs, the learning rates Adam is tuned in, and rounding."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from netwright.engine.task import Problem, accuracy, mse, one_hot, same
from netwright.waiting.losses import cross_entropy, mean_squared_error


def rates(published: float) -> dict[str, tuple[float, float, float]]:
    """rule family -> (lowest, highest, published rate) of Adam on nets of a few thousand parameters."""
    return {family: (3e-4, 3e-2, published) for family in ("backprop", "local", "feedback")}


def classification(shape: tuple[int, ...], classes: int, delta: float) -> Problem:
    """Labels of vectors (D,) or images (C, H, W). A failed run scores 0: it predicts nothing."""
    return Problem(
        cross_entropy,
        accuracy,
        "accuracy",
        higher_is_better=True,
        worst=0.0,
        delta=delta,
        input=shape,
        output=(classes,),
        classes=classes,
        gives=frozenset({"labels", "vector" if len(shape) == 1 else "image"}),
        encode=partial(one_hot, classes=classes),
    )


def regression(shape: tuple[int, ...], outputs: int, worst: float, delta: float) -> Problem:
    """Real targets (outputs,) of vectors (D,), scored by the mean squared error."""
    return Problem(
        mean_squared_error,
        mse,
        "mean squared error",
        higher_is_better=False,
        worst=worst,
        delta=delta,
        input=shape,
        output=(outputs,),
        gives=frozenset({"targets", "vector"}),
        encode=same,
    )


def rounded(x: Tensor) -> Tensor:
    """x in float32, rounded to multiples of 2^-12: the last bit of a machine's cosine doesn't change the data."""
    return (torch.round(x * 4096) / 4096).float()
