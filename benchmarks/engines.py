"""The stack engine in units of one eager step of one model with the default torch.optim.Adam.

    python benchmarks/engines.py

64-64-10, batch 64, one thread, processor time, interleaved. Every copy has its own batch and its own rate. Rows: the unit
against itself (A/A), the loop engine, and stacks of 8 and 32 copies, eager and compiled; the seconds a compilation took.
"""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F
from _timing import ratios, write

from netwright.bench.entrant import enter
from netwright.bench.request import ArmSpec, open_task
from netwright.engine.loop import Loop, Setting
from netwright.engine.stack import Stack

TARGETS = {"stack 8": 4.5, "stack 8 compiled": 1.7, "stack 32": 8.0, "stack 32 compiled": 4.0}


def main() -> None:
    task = open_task("digits", {})
    entrant = enter(task, ArmSpec("default"))
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(32, 64, 64, generator=g), torch.randint(0, 10, (32, 64), generator=g)
    settings = [Setting.of(task, s, {"lr": 1e-3 * (1 + s / 32)}) for s in range(32)]

    def rules(k: int) -> list[Any]:
        return [entrant.build(s) for s in range(k)]

    def plain() -> Any:
        rule = rules(1)[0]
        optimizer = torch.optim.Adam(rule.parameters(), lr=1e-3)

        def step() -> None:
            optimizer.zero_grad()
            F.cross_entropy(rule(x[0]), y[0]).backward()
            optimizer.step()

        return step

    works: dict[str, Any] = {"unit": plain(), "A/A": plain()}
    loop = Loop(rules(1)[0], settings[0])
    works["loop"] = lambda: loop.step(x[0], y[0])
    compilation = {}
    for name in TARGETS:
        k = int(name.split()[1])
        stack = Stack(rules(k), settings[:k], compiled="compiled" in name)
        start = time.process_time()
        stack.step(x[:k], y[:k])
        if stack.compiled:
            compilation[name] = round(time.process_time() - start, 1)
        works[name] = lambda stack=stack, k=k: stack.step(x[:k], y[:k])
    rows = ratios(works, "unit")
    met = {name: rows[name]["median"] <= target for name, target in TARGETS.items()}
    write(
        "engines",
        {
            "unit": "eager step, 64-64-10, batch 64, torch.optim.Adam",
            "rows": rows,
            "targets": TARGETS,
            "met": met,
            "compilation_seconds": compilation,
        },
    )


if __name__ == "__main__":
    main()
