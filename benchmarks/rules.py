"""Memory and time of one training step by depth: local rules against backpropagation and its two memory savers.

    python benchmarks/rules.py [--rules NAME ...] [--depths 3 6 12 24] [--batch 128 4096] [--rounds N] [--device cuda]

Net 784-(500 x depth)-10, fused Adam, one thread. Peers in the same rounds: backpropagation; with each parameter stepped
and freed in its own gradient hook; with the blocks checkpointed in about sqrt(depth) segments; with both. Memory: peak
bytes of a step above parameters and optimizer state, from allocation events (exact). Time: processor time over
backpropagation's in the same round, with an A/A row. Writes evidence/benchmarks/rules.json (rules-cuda.json on a GPU).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import _timing
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from netwright.core import catalogue
from netwright.core.errors import Misfit
from netwright.engine.blocks import Blocks
from netwright.engine.loop import Loop, Setting
from netwright.engine.meter import peak_bytes
from netwright.engine.rule import Rule
from netwright.engine.task import Problem
from netwright.rules._kind import RulePart
from netwright.tensor.streams import generator, initialise

WIDTH, INPUTS, CLASSES = 500, 784, 10
BASE = "backprop"
SAVERS = ("backprop, stepped in hooks", "backprop, checkpointed", "backprop, checkpointed and stepped in hooks")


def net_of(depth: int) -> Blocks:
    sizes = (INPUTS, *(WIDTH,) * depth)
    blocks = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in zip(sizes, sizes[1:], strict=False)]
    return Blocks(blocks, nn.Linear(WIDTH, CLASSES), [(WIDTH,)] * depth)


def rule_of(part: RulePart, depth: int, device: str, **options: Any) -> Rule:
    with torch.device("meta"):
        rule = part.build(net_of(depth), Problem.classification((INPUTS,), CLASSES), **options)
    rule.to_empty(device="cpu")
    initialise(rule, 0)
    return rule.to(device)


def data(batch: int, device: str) -> tuple[Tensor, Tensor]:
    g = generator(0, "probe")
    return torch.randn(batch, INPUTS, generator=g).to(device), torch.randint(CLASSES, (batch,), generator=g).to(device)


def looped(part: RulePart, depth: int, batch: int, device: str) -> Callable[[], None]:
    """A step of a rule as the loop engine takes it: each unit stepped and freed as its loss comes."""
    rule, (x, y) = rule_of(part, depth, device), data(batch, device)
    loop = Loop(rule, Setting(seed=0, lr=1e-4, steps=1, batch=batch, evals=(1,), optimizer="adam", schedule="constant"))
    draws = tuple(d.to(device) for d in rule.draw(x, y, generator(0, "draw", device=device)))
    return lambda: loop.step(x, y, draws) and None


def saving(depth: int, batch: int, device: str, hooks: bool, segments: bool) -> Callable[[], None]:
    """A step of backpropagation that saves memory in the ways its users know."""
    rule, (x, y) = rule_of(catalogue.get(f"rule/{BASE}"), depth, device), data(batch, device)
    net, fused = rule.net, {"lr": 1e-4, "fused": True}
    optimizers: list[torch.optim.Optimizer] = []
    if hooks:
        for p in net.parameters():
            own = torch.optim.Adam([p], **fused)

            def step(p: Tensor, own: torch.optim.Optimizer = own) -> None:
                own.step()
                p.grad = None

            p.register_post_accumulate_grad_hook(step)
    else:
        optimizers = [torch.optim.Adam(net.parameters(), **fused)]
    size = max(1, round(math.sqrt(depth)))
    stages = [nn.Sequential(*list(net.blocks)[i : i + size]) for i in range(0, depth, size)]

    def work() -> None:
        h = x
        for stage in stages:
            h = checkpoint(stage, h, use_reentrant=False) if segments else stage(h)
        rule.problem.loss(net.readout(h), y).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return work


def peak(work: Callable[[], None], device: str) -> int | None:
    for _ in range(2):  # the optimizer's state is there before the measured step
        work()
    if device == "cpu":
        return peak_bytes(work)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def works(rules: list[str], depth: int, batch: int, device: str) -> dict[str, Callable[[], None]]:
    base = catalogue.get(f"rule/{BASE}")
    found = {BASE: looped(base, depth, batch, device), "A/A": looped(base, depth, batch, device)}
    for name, (hooks, segments) in zip(SAVERS, ((True, False), (False, True), (True, True)), strict=True):
        found[name] = saving(depth, batch, device, hooks, segments)
    for name in rules:
        part, _ = catalogue.parse(name, kind="rule")
        try:
            found[name] = looped(part, depth, batch, device)
        except Misfit as error:
            print(f"{name}: {error}")
    return found


def synchronised(work: Callable[[], None], device: str) -> Callable[[], None]:
    def done() -> None:
        work()
        torch.cuda.synchronize()

    return work if device == "cpu" else done


def summary(rows: dict[str, Any], rules: list[str], batch: str) -> list[str]:
    """What was asked of each local rule: flat memory, how far below the best saver, and step time over backpropagation."""
    mine, said = rows[batch], []
    depths = list(mine)
    deep, shallow = mine[depths[-1]], mine[depths[0]]
    savers = [deep[name]["bytes"] for name in SAVERS[:2] if deep.get(name)]
    every = [deep[name]["bytes"] for name in SAVERS if deep.get(name)]
    for name in rules:
        if not deep.get(name) or not shallow.get(name):
            continue
        times = " ".join(f"{mine[d][name]['time']['median']:.2f}" for d in depths if mine[d][name]["time"]) or "not timed"
        said.append(
            f"B {batch} {name}: memory depth {depths[-1]} / {depths[0]} = {deep[name]['bytes'] / shallow[name]['bytes']:.2f};"
            f" best saver / rule at depth {depths[-1]} = {min(savers) / deep[name]['bytes']:.2f}"
            f" ({min(every) / deep[name]['bytes']:.2f} with both savers at once); time over {BASE} {times}"
        )
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    local = [p.name for p in catalogue.parts("rule") if p.tags.local and not p.tags.closed_form]
    parser.add_argument("--rules", nargs="+", default=local, help="default: every local rule")
    parser.add_argument("--depths", nargs="+", type=int, default=[3, 6, 12, 24])
    parser.add_argument("--batch", nargs="+", type=int, default=[128, 4096])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for batch in given.batch:
        for depth in given.depths:
            cells = works(given.rules, depth, batch, given.device)
            timed = {name: synchronised(work, given.device) for name, work in cells.items()}
            times = _timing.ratios(timed, BASE, given.rounds, sample=0.0) if batch == given.batch[0] else {}
            mine = {name: {"bytes": peak(work, given.device), "time": times.get(name)} for name, work in cells.items()}
            rows.setdefault(str(batch), {})[str(depth)] = mine
            for name, row in mine.items():
                time = f"{row['time']['median']:.2f}x" if row["time"] else ""
                print(f"B {batch} depth {depth:2} {name:45} {(row['bytes'] or 0) / 2**20:8.2f} MiB {time}", flush=True)
    said = [line for batch in rows for line in summary(rows, given.rules, batch)]
    name = "rules" if given.device == "cpu" else f"rules-{given.device.split(':')[0]}"
    _timing.write(name, {"net": f"{INPUTS}-({WIDTH} x depth)-{CLASSES}", "summary": said, "rows": rows}, "summary")


if __name__ == "__main__":
    main()
