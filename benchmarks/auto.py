"""Engine `auto` against the better engine, on demo-size studies (10 seeds, 5 trials) of every host.

    python benchmarks/auto.py

For one arm: processor seconds of a step of the loop engine and of a stack of the plan's size, eager and compiled,
interleaved on one thread, and of a whole validation; compiling is timed once. The cost of a study is what those make of
its runs, stacks, steps and evaluations. The plan's choice may cost at most 1.1 times the best.
"""

from __future__ import annotations

import math
import os
import time
from typing import Any

# A first compilation, with its compiler's time in sight: nothing cached, nothing handed to other processes.
os.environ |= {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}

import torch
from _timing import cost, ratios, write

from netwright.bench import plan as planning
from netwright.bench.entrant import enter_all
from netwright.bench.request import ArmSpec, Terms, make_request, open_task
from netwright.engine.loop import Loop, Setting, predict
from netwright.engine.stack import Stack

HOSTS = {
    "mlp": "digits",
    "mlp, wide": "mnist",
    "mlp, wider": "mnist:size=full",
    "convnet": "digits:host=convnet",
    "convnet, wide": "digits:host=convnet,size=full",
    "transformer": "shakespeare",
}
MOST = 1.1


def clock() -> float:
    """Processor seconds of this process and of the compilers it has run."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def measure(ref: str) -> dict[str, Any]:
    """Seconds of a demo-size study of one arm by engine, and what `auto` chose."""
    task = open_task(ref, {})
    request = make_request(task, ref, {}, [ArmSpec("default")], Terms(seeds=10, trials=5))
    (entrant,) = enter_all(task, request)
    plan = planning.make_plan(request, [entrant])
    k, runs = plan.stack, 50
    settings = [Setting.of(task, s, {"lr": 1e-3}) for s in range(k)]
    data = task.data(0)
    rows = data.train[: task.batch]
    x, y, val = data.x[rows], data.y[rows], data.x[data.val]
    xs, ys = torch.stack([x] * k), torch.stack([y] * k)

    def rules(n: int) -> list[Any]:
        return [entrant.build(s) for s in range(n)]

    loop = Loop(rules(1)[0], settings[0])
    works: dict[str, Any] = {"loop": lambda: loop.step(x, y)}
    loads = {"loop": cost(lambda: predict(loop.rule, val), 2)}
    stacks, compiling = math.ceil(runs / k), {"loop": 0.0, "stack": 0.0, "stack-compiled": 0.0}
    for engine in ("stack", "stack-compiled"):
        try:
            stack = Stack(rules(k), settings, compiled=engine == "stack-compiled")
            start = clock()
            stack.step(xs, ys)
        except Exception as error:
            print(f"{ref}: no {engine} ({type(error).__name__})")
            continue
        compiling[engine] = clock() - start if stack.compiled else 0.0
        works[engine] = lambda stack=stack: stack.step(xs, ys)
        loads[engine] = cost(lambda stack=stack: stack.predict(torch.stack([val] * k)))
    found = ratios(works, "loop", rounds=7)
    step = {e: row["median"] * found["loop"]["seconds"] for e, row in found.items()}
    many = {"loop": runs, "stack": stacks, "stack-compiled": stacks}
    total = {e: many[e] * (task.steps * step[e] + len(task.evals) * loads[e] + compiling[e]) for e in step}
    chosen = plan.engines[entrant.name]
    best = min(total, key=lambda e: total[e])
    flops = entrant.price("flops")
    return {
        "task": ref,
        "step_mflop": round(flops / 1e6, 1),
        "copies": k,
        "steps": task.steps,
        "parameters": sum(p.numel() for p in loop.rule.parameters()),
        "steps_of_loop": found,
        "compilation_seconds": round(compiling["stack-compiled"], 1),
        "study_seconds": {e: round(v, 2) for e, v in total.items()},
        "auto": chosen,
        "best": best,
        "auto_over_best": round(total[chosen] / total[best], 3),
        "met": total[chosen] <= MOST * total[best],
    }


def main() -> None:
    rows = {}
    for host, ref in HOSTS.items():
        try:
            rows[host] = measure(ref)
        except Exception as error:  # data that is not there
            print(f"{host}: not measured ({type(error).__name__}: {str(error)[:100]})")
        else:
            print(host, rows[host]["study_seconds"], "auto:", rows[host]["auto"], flush=True)
    write("auto", {"seeds": 10, "trials": 5, "hosts": rows})


if __name__ == "__main__":
    main()
