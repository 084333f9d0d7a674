"""Time of one step of every optimizer beside torch's fused Adam, over the parameters of a small transformer.

    python benchmarks/optimizers.py [--optimizers NAME ...] [--rounds N] [--layers N] [--width N]

The net: an embedding, `layers` blocks of attention, a norm and an MLP of `width`, a head; gradients are drawn once and
stay. Step: optimizer.step() alone, one thread, processor time over that of torch.optim.Adam(fused=True) in the same
round, with an A/A row; and the state in bytes over that of the parameters. Writes evidence/benchmarks/optimizers.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import _timing
import torch
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.kind import OPTIMIZER
from netwright.tensor.streams import generator

BASE = "torch.optim.Adam(fused=True)"


def net_of(layers: int, width: int) -> nn.Module:
    """A small transformer with a gradient at every parameter."""
    block = lambda: nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True)  # noqa: E731
    net = nn.Sequential(nn.Embedding(256, width), *(block() for _ in range(layers)), nn.Linear(width, 256))
    draw = generator(0, "probe")
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(0.05 * torch.randn(p.shape, generator=draw))
            p.grad = 0.01 * torch.randn(p.shape, generator=draw)
    return net


def stepping(optimizer: torch.optim.Optimizer) -> Callable[[], Any]:
    optimizer.step()  # the state is there before the measured step
    return optimizer.step


def bytes_of(optimizer: torch.optim.Optimizer) -> int:
    tensors = {id(t): t for state in optimizer.state.values() for t in state.values() if isinstance(t, Tensor)}
    return sum(t.numel() * t.element_size() for t in tensors.values())


def main() -> None:
    every = [part.name for part in catalogue.parts() if OPTIMIZER in part.slots()]
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--optimizers", nargs="+", default=every)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    given = parser.parse_args()
    works, kept, parts = {}, {}, {}
    for name in (BASE, "A/A"):
        works[name] = stepping(torch.optim.Adam(net_of(given.layers, given.width).parameters(), fused=True))
    net = net_of(given.layers, given.width)
    own = sum(p.numel() * p.element_size() for p in net.parameters())
    for name in given.optimizers:
        part: Any = catalogue.get(name, catalogue.kind_with(OPTIMIZER))
        optimizer = part.build(net_of(given.layers, given.width))
        works[name], parts[name] = stepping(optimizer), part.id
        kept[name] = bytes_of(optimizer) / own
    rows = _timing.ratios(works, BASE, given.rounds)
    steps = [
        {"part": parts[name], "ratio": rows[name]["median"], "quartiles": rows[name]["quartiles"], "state": round(kept[name], 3)}
        for name in given.optimizers
    ]
    row = {
        "benchmark": "a step beside torch's fused Adam",
        "command": "python benchmarks/optimizers.py",
        "net": {"layers": given.layers, "width": given.width, "values": own // 4, "tensors": len(list(net.parameters()))},
        "rounds": given.rounds,
        "A/A": rows["A/A"],
        "steps": steps,
    }
    _timing.write("optimizers", row)


if __name__ == "__main__":
    main()
