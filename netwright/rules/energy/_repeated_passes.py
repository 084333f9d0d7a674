"""Several passes of one input: nets that repeat themselves, and statistics that count one pass alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from netwright.core.errors import Misfit


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
