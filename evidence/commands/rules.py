"""Learning rules side by side: accuracy, what each layer knows, steps and time to learn, memory, inference, depth.

    python evidence/commands/rules.py [--section small full depth mnist-conv cifar10-conv cora] [--rule NAME ...]
                                      [--budget MINUTES] [--workers N] [--out FOLDER]

Needs the data (NETWRIGHT_DATA). Resumable: a cell (one rule in one section, one seed of it where runs are long) that is
done with the present code is not run again; a cell that is not done stands as missing. Every rule trains the same net at
its own best rate: four points of the task's range (three where marked *short budget*), chosen by validation, the test set
scored once. Writes evidence/rules.json and evidence/rules.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from _rules_table import page
from torch import Tensor

from netwright.bench import probe
from netwright.bench.entrant import Entrant, enter
from netwright.bench.environment import environment
from netwright.bench.request import parse_arm
from netwright.bench.study import Study
from netwright.core import catalogue
from netwright.core.errors import Misfit, NetwrightError, slug
from netwright.core.expressions import equivalents
from netwright.core.fingerprint import fingerprint
from netwright.core.kind import RULE
from netwright.core.writing import write_whole
from netwright.engine.blocks import pooled
from netwright.engine.loop import predict, train
from netwright.engine.task import Data, Task, eval_grid

HERE = Path(__file__).resolve().parents[1]
BASE, CONTROL = "backprop", "frozen-hidden"
#: Rows beside the default setting of every rule.
VARIANTS = (
    "mono-forward:predict=sum",
    "mono-forward:frozen=True",
    "forward-forward:predict=all",
    "dfa:signal=target",
    "forward-forward:predict=classifier",
    "collaborative-ff:collaborate=preceding",
    "lls:variant=m",
    "lls:variant=mxm",
    "local-loss:loss=pred",
    "local-loss:loss=sim",
    "cafo:head=ce",
    "sign-symmetry:variant=fixed",
    "sign-symmetry:variant=redrawn",
    "noprop:steps=1",
    "multitasking-hebbian:steps=0",
    "predictive-coding:variant=fixed-prediction",
    "equilibrium-propagation:estimate=one-sided",
    "difference-target-propagation:feedback=ldrl",
    "physical-ff:reads=physical",
)
SEEDS = 6
LEADERS = {"full": 8, "mnist-conv": 6, "cifar10-conv": 6}
#: Run on all of MNIST whatever they score on 10 000 images, for targets were set for them.
TARGETED = (
    "backprop",
    "frozen-hidden",
    "mono-forward",
    "dual-propagation",
    "lls",
    "local-loss",
    "dfa",
    "forward-forward:predict=all",
    "counter-current",
    "noprop",
    "forward-forward",
)
DEPTHS = (1, 2, 4, 8)
#: Rules whose use of depth is looked at: those that train hidden blocks without a gradient through all of them.
DEEP = (
    "backprop",
    "frozen-hidden",
    "mono-forward",
    "lls",
    "local-loss",
    "forward-forward",
    "dfa",
    "counter-current",
    "soft-hebbian",
    "dual-propagation",
    "collaborative-ff",
    "physical-ff",
    "difference-target-propagation",
    "feedback-alignment",
    "sign-symmetry",
    "cafo",
    "noprop",
    "predictive-coding",
    "equilibrium-propagation",
)
PROBED = (0, 1)  # seeds whose layers are probed


# What is run ----------------------------------------------------------------------------------------------------------


def task_of(section: str, depth: int = 2, rate: float | None = None) -> Task:
    """The section's task: data, host and budget as the issue of the rules asks."""
    name, size, host = {
        "small": ("mnist", "small", "mlp"),
        "depth": ("mnist", "small", "mlp"),
        "full": ("mnist", "full", "mlp"),
        "mnist-conv": ("mnist", "small", "convnet"),
        "cifar10-conv": ("cifar10", "small", "convnet"),
        "cora": ("cora", "full", ""),
    }[section]
    part = catalogue.get(f"task/{name}")
    task = part.build(size=size, **({"host": host} if host else {}))
    changes: dict[str, Any] = {}
    if section in ("small", "depth"):  # 5 epochs of 10 000 images
        changes = {"widths": (256,) * depth, "steps": 780, "evals": eval_grid(780, 20)}
    elif section == "full":
        changes = {"widths": (256, 256), "evals": eval_grid(task.steps, 20)}
    elif section in ("mnist-conv", "cifar10-conv"):  # 3 epochs of 10 000 images
        changes = {"steps": 3 * 10_000 // task.batch, "evals": eval_grid(3 * 10_000 // task.batch, 9)}
    if rate is not None:
        changes["lr"] = (*task.lr[:2], rate)
    return dataclasses.replace(task, **changes)


def entrant_of(task: Task, spec: str) -> Entrant:
    return enter(task, parse_arm(spec, task))


def fit(spec: str, task: Task) -> str:
    """'' where the rule fits the task's host, else why not."""
    try:
        entrant_of(task, spec).build(0, meta=True)
    except Misfit as error:
        return str(error)
    return ""


def specs() -> list[str]:
    """Every rule at its default, then the variants that exist."""
    found = [part.name for part in catalogue.parts("rule")]
    for text in VARIANTS:
        try:
            part, options = catalogue.parse(text, kind="rule")
            part.resolve(options)
        except NetwrightError:
            continue
        found.append(text)
    return found


def mark(spec: str) -> str:
    return fingerprint(catalogue.parse(spec, kind="rule")[0])


# One cell -------------------------------------------------------------------------------------------------------------


def scores(section: str, spec: str, seeds: list[int], trials: int, rate: float | None, out: str) -> dict[str, Any]:
    """Tuned test scores, the rates chosen, and the validation curves of the chosen runs."""
    task = task_of(section, rate=rate)
    study = Study(task, [spec], seeds=seeds, trials=trials, match="none", out=Path(out) / "study", control=False)
    result = study.run()
    chosen = {(s.seed, s.trial): s for s in result.scores}
    runs = [r for r in result.records if (r.seed, r.trial) in chosen and r.state != "superseded"]
    return {
        "scores": {str(s.seed): s.value for s in result.scores},
        "failed": sum(s.failed for s in result.scores),
        "rates": {str(r.seed): r.point["lr"] for r in runs},
        "curves": {str(r.seed): [[step, value] for step, _, value in r.curve] for r in runs},
        "trials": trials,
        "steps": task.steps,
        "batch": task.batch,
    }


def trained(task: Task, spec: str, seed: int, rate: float) -> tuple[Any, Data]:
    """A rule at the best state of one training."""
    entrant, data = entrant_of(task, spec), task.data(seed)
    rule = entrant.build(seed)
    done = train(rule, data, entrant.setting(seed, {"lr": rate}), entrant.tags.closed_form)
    if done.best_state is not None:
        rule.load_state_dict(done.best_state)
    return rule, data


@torch.no_grad()
def layers(rule: Any, data: Data) -> list[float]:
    """Test accuracy of a ridge regression on each block's output (standardised; lambda a hundredth of the rows)."""
    rule.eval()
    shapes = rule.net.shapes

    def features(x: Tensor) -> list[Tensor]:
        pieces = [rule.features(part) for part in x.split(1000)]
        return [torch.cat([pooled(p[k], shape) for p in pieces]).double() for k, shape in enumerate(shapes)]

    (x, y), (x_test, y_test) = data.split("train"), data.split("test")
    out = []
    for h, h_test in zip(features(x[:10_000]), features(x_test), strict=True):
        mean, sd = h.mean(0), h.std(0) + 1e-6
        h, h_test = (h - mean) / sd, (h_test - mean) / sd
        targets = torch.nn.functional.one_hot(y[: len(h)]).double()
        weights = torch.linalg.solve(h.T @ h + 0.01 * len(h) * torch.eye(h.shape[1], dtype=h.dtype), h.T @ (targets - 0.1))
        out.append(float(((h_test @ weights).argmax(1) == y_test).double().mean()))
    return out


def layer_rows(section: str, spec: str, rate: float, depth: int = 2, seeds: tuple[int, ...] = PROBED) -> list[dict[str, Any]]:
    """One row a seed: the whole net's test accuracy and each layer's."""
    rows = []
    for seed in seeds:
        rule, data = trained(task_of(section, depth), spec, seed, rate)
        x, y = data.split("test")
        rows.append({"net": float(rule.problem.metric(predict(rule, x), y)), "layers": layers(rule, data)})
    return rows


def costs(section: str, spec: str) -> dict[str, Any]:
    """Step time and peak step memory over backpropagation's in the same rounds, and what a prediction costs."""
    task = task_of(section)
    torch.set_num_threads(1)
    base, mine = entrant_of(task, BASE), entrant_of(task, spec)
    steppers = [probe.Stepper(entrant) for entrant in (base, mine, base)]
    tags, blocks = mine.tags, len(task.widths)
    names = {**mine.parts[RULE].resolved, "classes": task.problem.classes or 0, "depth": blocks}
    row: dict[str, Any] = {"predict": equivalents(tags.forwards_predict, names)}
    row["predict_flops"] = mine.flops[1] / base.flops[1]
    if tags.closed_form:
        return row
    first, second, again = probe.interleaved(steppers)
    ratios = [b / a for a, b in zip(first, second, strict=True)]
    memory = [probe.peak_memory(stepper) for stepper in steppers[:2]]
    return row | {
        "time": statistics.median(ratios),
        "aa": statistics.median(b / a for a, b in zip(first, again, strict=True)),
        "memory": memory[1] / memory[0] if all(memory) else None,
    }


def cell(section: str, spec: str, unit: str, trials: int, rate: float | None, out: str) -> dict[str, Any]:
    """All figures of one cell, as plain data. Importable by name: worker processes call it."""
    torch.set_num_threads(1)
    begun = time.perf_counter()
    row: dict[str, Any] = {"section": section, "rule": spec, "unit": unit, "fingerprint": mark(spec)}
    try:
        if why := fit(spec, task_of(section)):
            return row | {"misfit": why}
        if section == "depth":
            assert rate is not None
            row["depths"] = {str(depth): layer_rows(section, spec, rate, depth) for depth in DEPTHS}
        else:
            row |= scores(section, spec, list(range(SEEDS)) if unit == "all" else [int(unit)], trials, rate, out)
            middle = statistics.median(row["rates"].values()) if row["rates"] else None
            if section == "small" and middle is not None:
                row["probes"] = layer_rows(section, spec, middle)
            if section != "cora" and unit in ("all", "0"):
                row["costs"] = costs(section, spec)
    except Exception as error:  # one rule's failure is a row, not the end of the table
        row["error"] = f"{type(error).__name__}: {error}"[:400]
    return row | {"minutes": round((time.perf_counter() - begun) / 60, 2)}


# The whole table ------------------------------------------------------------------------------------------------------


def mean_of(row: Mapping[str, Any] | None) -> float:
    values = list((row or {}).get("scores", {}).values())
    return sum(values) / len(values) if values else -1.0


def rates_of(cells: Mapping[str, Any]) -> dict[str, float]:
    """The median rate that validation chose on mnist small, a rule."""
    small = [row for row in cells.values() if row["section"] == "small" and row.get("rates")]
    return {row["rule"]: statistics.median(row["rates"].values()) for row in small}


def leaders(cells: Mapping[str, Any], n: int) -> list[str]:
    """Backprop, the control, and the n best other rules on mnist small, one setting of each rule."""
    small = sorted((r for r in cells.values() if r["section"] == "small" and r.get("scores")), key=mean_of, reverse=True)
    best: list[str] = []
    for row in small:
        name = row["rule"].split(":")[0]
        if name not in (BASE, CONTROL) and name not in {b.split(":")[0] for b in best}:
            best.append(row["rule"])
    return [BASE, CONTROL, *best[:n]]


def wanted(section: str, cells: Mapping[str, Any], only: list[str]) -> Iterator[tuple[str, str, str, int, float | None]]:
    """(section, rule, unit, trials, rate) of every cell, the most telling first."""
    if section == "small":
        rows = [(section, spec, "all", 4, None) for spec in specs()]
        order = [BASE, CONTROL]
        rows.sort(key=lambda row: order.index(row[1]) if row[1] in order else len(order))
    elif section == "full":
        rates = rates_of(cells)
        chosen = [*TARGETED, *leaders(cells, LEADERS[section])]
        rows = [(section, spec, "all", 1, rates[spec]) for spec in dict.fromkeys(chosen) if spec in rates]
    elif section == "depth":
        rates = rates_of(cells)
        rows = [(section, spec, "all", 1, rates[spec]) for spec in DEEP if spec in rates]
    elif section == "cora":
        rows = [(section, spec, "all", 4, None) for spec in (BASE, CONTROL, "forward-gnn", "forward-gnn:variant=la")]
    else:  # seeds apart, all rules at one seed before the next
        best = leaders(cells, LEADERS[section])
        rows = [(section, spec, str(seed), 3, None) for seed in range(SEEDS) for spec in best]
    for row in rows:
        if not only or row[1].split(":")[0] in only:
            yield row


def key_of(section: str, spec: str, unit: str) -> str:
    return f"{section}/{spec}/{unit}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections = ("small", "full", "depth", "mnist-conv", "cifar10-conv", "cora")
    parser.add_argument("--section", nargs="+", choices=sections, default=list(sections))
    parser.add_argument("--rule", nargs="+", default=[], help="only these rules")
    parser.add_argument("--budget", type=float, default=60.0, help="minutes after which no further cell is begun")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    parser.add_argument("--out", type=Path, default=Path("netwright-studies/rules"))
    given = parser.parse_args()
    path, begun = HERE / "rules.json", time.monotonic()
    saved = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cells": {}}
    cells: dict[str, Any] = saved["cells"]

    def write() -> None:
        stale = sorted(key for key, row in cells.items() if row["fingerprint"] != mark(row["rule"]))
        text = json.dumps({"environment": environment(), "stale": stale, "cells": dict(sorted(cells.items()))}, indent=1)
        write_whole(path, text + "\n")
        write_whole(HERE / "rules.md", page(json.loads(text)))

    def keep(row: dict[str, Any]) -> None:
        cells[key_of(row["section"], row["rule"], row["unit"])] = row
        write()
        said = row.get("error") or row.get("misfit") or (f"{mean_of(row):.4f}" if "scores" in row else "done")
        print(f"{row['section']} {row['rule']} {row['unit']}: {said} ({row.get('minutes', 0)} min)", flush=True)

    with ProcessPoolExecutor(given.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for section in given.section:
            running: set[Future[dict[str, Any]]] = set()
            for section_, spec, unit, trials, rate in wanted(section, cells, given.rule):
                old = cells.get(key_of(section_, spec, unit))
                if old and old["fingerprint"] == mark(spec) and "error" not in old:
                    continue
                while len(running) >= given.workers:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        keep(future.result())
                if time.monotonic() - begun > 60 * given.budget:
                    print(f"budget spent before {section_} {spec} {unit}", flush=True)
                    break
                where = given.out / section_ / f"{slug(spec)}-{unit}-{mark(spec)[:8]}"
                running.add(pool.submit(cell, section_, spec, unit, trials, rate, str(where)))
            for future in running:
                keep(future.result())
    write()


if __name__ == "__main__":
    main()
