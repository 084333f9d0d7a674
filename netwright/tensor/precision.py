"""Mixed precision: which dtype products are made in, and the context in which it is off."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype products are made in on x's device under autocast, or None outside it."""
    device = x.device.type
    on = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if on else None


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """The context in which mixed precision is off on x's device, for what bfloat16 would drown or can't solve."""
    return nullcontext() if autocast_dtype(x) is None else torch.autocast(x.device.type, enabled=False)
