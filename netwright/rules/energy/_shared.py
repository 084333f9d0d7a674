"""What rules that infer states share: Jacobian products, the gradient of a row's loss, passes that leave statistics alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from netwright.core.errors import Misfit

Pull = Callable[[Tensor], Tensor]


def linearised(f: Callable[[Tensor], Tensor], h: Tensor) -> tuple[Tensor, Pull]:
    """f(h) in h's dtype, and v -> J^T v with the Jacobian J of f at h."""
    # Inferred states move by little: kept in what autocast returns, small steps would round to nothing.
    out, pull = torch.func.vjp(lambda h: f(h).to(h.dtype), h)[:2]
    return out, lambda v: pull(v)[0]


def widened(h: Tensor, net: nn.Module) -> Tensor:
    """h in the dtype of the net's parameters."""
    return h.to(next(net.parameters()).dtype)


def row_gradient(loss: Callable[[Tensor], Tensor], h: Tensor) -> Tensor:
    """Gradient of every row's own loss at h (B, ...): that of `loss`, a mean over the rows, times their number."""
    return len(h) * torch.func.grad(loss)(h)


def require_repeatable(net: nn.Module, who: str) -> None:
    """Raises Misfit where a module draws at random, or keeps statistics that `untracked` doesn't hold: where an input passes
    several times, what changes between the passes would be taken for an error."""
    for path, module in net.named_modules():
        shape = getattr(getattr(getattr(module, "part", None), "tags", None), "shape", "")
        draws = isinstance(module, (nn.modules.dropout._DropoutNd, nn.RReLU)) and getattr(module, "p", 1.0) > 0
        if draws or shape == "stateful":
            raise Misfit(
                f"{who} compares passes of one input, and {path} ({type(module).__name__}) changes from pass to pass in"
                " training; use a net without dropout and without activations that draw or keep statistics"
            )


@contextmanager
def untracked(net: nn.Module) -> Iterator[None]:
    """Passes within it leave running statistics as they are."""
    tracking = [m for m in net.modules() if getattr(m, "track_running_stats", False) and m.training]
    for module in tracking:
        module.track_running_stats = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True  # type: ignore[assignment]
