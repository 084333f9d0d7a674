"""Beyond Backpropagation (arXiv:2509.19063): FF, CaFo and Mono-Forward against backpropagation twins, both ways.

    python evidence/commands/beyond_backprop.py [--protocol paper clean] [--scale 0.1] [--budget MINUTES] [--device cuda]

The study's claims: Mono-Forward beats backpropagation of the same net, with up to 41 % less energy and 34 % less time; the
saving of memory is not inherent; Forward-Forward is inefficient.
paper: as the released code is set (Przemyslaw11/BeyondBackpropagation, read on 6 May 2026): unequal search (10 trials for
backpropagation, 50 for the others, 15 epochs each), unequal stopping (backpropagation: patience 20, up to 100 epochs; the
others: patience 4, least gain 1e-4, at most 15 epochs a layer), AdamW with a tuned decay against Adam without; three runs;
cost counted to the stop. clean: netwright's own protocol, the same number of trials, steps and evaluations for all.
--scale shrinks trials, patience and epochs of both sides alike. Energy is read from the GPU's counter, and is null without.
Resumable by pair and protocol. Writes evidence/beyond_backprop.json. Needs MNIST (NETWRIGHT_DATA).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from netwright.bench.entrant import enter
from netwright.bench.environment import environment
from netwright.bench.request import parse_arm
from netwright.bench.study import Study
from netwright.core import catalogue
from netwright.core.fingerprint import fingerprint
from netwright.core.writing import write_whole
from netwright.engine.loop import Loop, Setting, orders, predict, train
from netwright.engine.rule import Rule
from netwright.engine.task import Task

HERE = Path(__file__).resolve().parents[1]
#: name -> (rule, host): the nets the study gives each; a twin of the same net is trained by backpropagation.
PAIRS = {
    "mono-forward": ("mono-forward", "mlp"),
    "forward-forward": ("forward-forward", "mlp"),
    "cafo": ("cafo:head=ce", "convnet"),
}
BASE = "backprop"


@dataclasses.dataclass(frozen=True)
class Side:
    """How the released code tunes and stops one side of a pair."""

    trials: int
    tuning_epochs: float
    patience: int
    gain: float
    epochs: float
    optimizer: str
    decay: tuple[float, float] | None  # range of a tuned weight decay

    @staticmethod
    def of(rule: str, depth: int, scale: float) -> Side:
        def n(value: float) -> int:
            return max(1, round(value * scale))

        if rule == BASE:
            return Side(n(10), 15 * scale, n(20), 0.0, 100 * scale, "adamw", (1e-6, 1e-2))
        return Side(n(50), 15 * scale, n(4), 1e-4, 15 * depth * scale, "adam", None)


def task_of(host: str) -> Task:
    return catalogue.get("task/mnist").build(size="small", host=host)


def fresh(task: Task, spec: str, seed: int, device: str) -> tuple[Rule, bool]:
    entrant = dataclasses.replace(enter(task, parse_arm(spec, task)), device=device)
    return entrant.build(seed), entrant.tags.closed_form


def energy(device: str) -> float | None:
    """Joules the GPU has used since it was started, by NVML's counter (which ticks about every 0.1 s), or None."""
    if not device.startswith("cuda"):
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(0)) / 1000
    except Exception:
        return None


def until_it_stops(
    task: Task, spec: str, seed: int, lr: float, decay: float, side: Side, epochs: float, device: str
) -> dict[str, Any]:
    """One training with early stopping on validation, its cost counted to the stop."""
    rule, closed = fresh(task, spec, seed, device)
    data = task.data(seed)
    data = dataclasses.replace(data, **{name: getattr(data, name).to(device) for name in ("x", "y", "train", "val", "test")})
    per_epoch = len(data.train) // task.batch
    steps = max(1, math.ceil(epochs * per_epoch))
    setting = Setting(
        seed=seed, lr=lr, steps=steps, batch=task.batch, evals=(steps,), optimizer=side.optimizer, weight_decay=decay
    )
    (x_val, y_val), (x_test, y_test) = data.split("val"), data.split("test")
    joules, begun, spent = energy(device), time.perf_counter(), 0
    best, state, stale = -1.0, None, 0
    if closed:
        train(rule, data, setting, closed_form=True)
        best = float(task.problem.metric(predict(rule, x_val), y_val))
    else:
        loop, draws = Loop(rule, setting), torch.Generator().manual_seed(seed)
        for step, rows in enumerate(orders(len(data.train), task.batch, steps, [seed])):
            chosen = data.train[rows[0].to(device)]
            x, y = data.x[chosen], data.y[chosen]
            loss = loop.step(x, y, rule.draw(x, y, draws))
            spent = step + 1
            if not math.isfinite(float(loss)):
                break
            if (step + 1) % per_epoch and step + 1 < steps:
                continue
            score = float(task.problem.metric(predict(rule, x_val), y_val))
            stale = 0 if score > best + side.gain else stale + 1
            if score > best:
                best, state = score, {k: v.detach().clone() for k, v in rule.state_dict().items()}
            if stale > side.patience:
                break
    seconds, after = time.perf_counter() - begun, energy(device)
    if state is not None:
        rule.load_state_dict(state)
    return {
        "val": best,
        "test": float(task.problem.metric(predict(rule, x_test), y_test)),
        "steps": spent,
        "seconds": seconds,
        "joules": None if joules is None or after is None else after - joules,
    }


def tuned(task: Task, spec: str, scale: float, device: str) -> dict[str, Any]:
    """The released code's procedure for one side: search, then three runs at the best point."""
    rule = spec.split(":")[0]
    side = Side.of(rule, len(task.widths), scale)
    low, high, _ = enter(task, parse_arm(rule, task)).rates
    g = torch.Generator().manual_seed(0)
    points = []
    for _ in range(side.trials):
        u, v = torch.rand(2, generator=g).tolist()
        decay = 0.0 if side.decay is None else side.decay[0] * (side.decay[1] / side.decay[0]) ** v
        points.append((low * (high / low) ** u, decay))
    found = [until_it_stops(task, spec, 0, *point, side, side.tuning_epochs, device)["val"] for point in points]
    point = points[max(range(len(points)), key=found.__getitem__)]
    runs = [until_it_stops(task, spec, seed, *point, side, side.epochs, device) for seed in (0, 1, 2)]
    return {"side": dataclasses.asdict(side), "lr": point[0], "decay": point[1], "runs": runs}


def paper(pair: str, scale: float, device: str, out: Path) -> dict[str, Any]:
    spec, host = PAIRS[pair]
    task = task_of(host)
    twin, mine = tuned(task, BASE, scale, device), tuned(task, spec, scale, device)

    def mean(side: dict[str, Any], key: str) -> float:
        return sum(run[key] for run in side["runs"]) / len(side["runs"])

    joules = all(run["joules"] for side in (twin, mine) for run in side["runs"])
    return {
        "scale": scale,
        "backprop": twin,
        "rule": mine,
        "accuracy_difference": mean(mine, "test") - mean(twin, "test"),
        "time_ratio_to_the_stop": mean(mine, "seconds") / mean(twin, "seconds"),
        "energy_ratio_to_the_stop": mean(mine, "joules") / mean(twin, "joules") if joules else None,
    }


def clean(pair: str, scale: float, device: str, out: Path) -> dict[str, Any]:
    spec, host = PAIRS[pair]
    study = Study("mnist", [BASE, spec], task_options={"host": host}, seeds=6, trials=4, match="none", device=device, out=out)
    result = study.run(print)
    (c,) = result.comparisons
    costs = {arm.name: dataclasses.asdict(arm.cost) if arm.cost else {} for arm in result.arms}

    def over(name: str) -> float | None:
        mine, twin = costs[spec].get(name), costs[BASE].get(name)
        return mine / twin if mine and twin else None

    return {
        "verdict": c.verdict,
        "difference": c.difference,
        "interval": c.interval,
        "p": c.p,
        "reason": c.reason,
        "scores": {arm.name: arm.mean for arm in result.arms},
        "step_time_ratio": costs[spec].get("step_ratio"),
        "peak_memory_ratio": over("peak_memory"),
        "predict_flops_ratio": over("flops_infer"),
        "command": study.command,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", nargs="+", choices=("paper", "clean"), default=["paper", "clean"])
    parser.add_argument("--pair", nargs="+", choices=list(PAIRS), default=list(PAIRS))
    parser.add_argument("--scale", type=float, default=0.1, help="of trials, patience and epochs of the paper's protocol")
    parser.add_argument("--budget", type=float, default=60.0, help="minutes after which no further pair is begun")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("netwright-studies/beyond-backprop"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    path, begun = HERE / "beyond_backprop.json", time.monotonic()
    rows: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for protocol in given.protocol:
        for pair in given.pair:
            spec = PAIRS[pair][0]
            prints = [fingerprint(catalogue.parse(name, kind="rule")[0]) for name in (BASE, spec)]
            key = f"{protocol} {pair} {given.device}"
            if rows.get(key, {}).get("fingerprints") == prints:
                continue
            if time.monotonic() - begun > 60 * given.budget:
                print(f"budget spent before {key}")
                continue
            run = {"paper": paper, "clean": clean}[protocol]
            rows[key] = run(pair, given.scale, given.device, given.out / f"{protocol}-{pair}") | {
                "fingerprints": prints,
                "environment": environment(given.device),
            }
            write_whole(path, json.dumps(rows, indent=1, sort_keys=True) + "\n")
            print(key, {k: v for k, v in rows[key].items() if isinstance(v, (int, float, str))})


if __name__ == "__main__":
    main()
