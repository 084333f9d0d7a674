"""The cells of evidence/rules.json as the tables of evidence/rules.md."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from netwright.bench.stats import arm_summary, compare

BASE, CONTROL = "backprop", "frozen-hidden"
MISSING = "missing"
TITLES = {
    "small": "MNIST, 10 000 training images, Mlp 784-256-256-10, 5 epochs, four rates",
    "full": "MNIST, all training images, Mlp 784-256-256-10, the median rate chosen on 10 000 images",
    "mnist-conv": "MNIST, 10 000 training images, ConvNet, 3 epochs, three rates (*short budget*)",
    "cifar10-conv": "CIFAR-10, 10 000 training images, ConvNet, 3 epochs, three rates (*short budget*)",
    "cora": "Cora, transductive node classification, two-layer graph convolution, four rates",
}
#: (rules, at least) of the targets on all of MNIST; a number below 0 is the distance allowed to backpropagation.
TARGETS = (
    (("backprop",), 0.980),
    (("mono-forward", "lls", "local-loss", "dual-propagation"), -0.007),
    (("forward-forward",), 0.960),
    (("noprop",), 0.970),
    (("dfa",), 0.970),
)
ABOVE = (("counter-current", 0.04),)  # (rule, at least so far above the control)


def page(saved: Mapping[str, Any]) -> str:
    """The whole page, written anew from the cells; a cell that was not run stands as missing."""
    cells = {key: {**row, "stale": key in saved.get("stale", ())} for key, row in saved["cells"].items()}
    out = [
        "# Learning rules side by side",
        "",
        "Written by `python evidence/commands/rules.py`; do not edit. One net, one budget, no matching of widths: every rule"
        " trains the same host at its own best learning rate. *above control*: clearly better than the same net with its"
        " hidden blocks frozen, each rule judged alone over the seeds it shares with the control. *layers*: test accuracy of a"
        " ridge regression on each block's output (two seeds). *95 %*: steps until validation reaches 95 % of"
        " backpropagation's best, on the evaluation grid, and the time that takes in steps of backpropagation. *step*,"
        " *memory*: time and peak memory of one training step over backpropagation's, in the same rounds. *predict*: forward"
        " passes of a prediction, and its products over backpropagation's. (*): measured before the rule's file last changed.",
    ]
    for section, title in TITLES.items():
        rows = [row for row in cells.values() if row["section"] == section]
        if rows:
            out += ["", f"## {title}", "", *table(rows)]
            if section == "full":
                out += ["", *targets(merged(rows))]
    depth = [row for row in cells.values() if row["section"] == "depth"]
    if depth:
        out += ["", "## Does the rule use its depth?", "", *depth_table(depth)]
    env = saved.get("environment", {})
    out += ["", f"torch {env.get('torch', '?')}, {env.get('cpu', '?')}, one thread a run.", ""]
    return "\n".join(out)


def merged(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """One row a rule, of cells that may hold a seed each."""
    out: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda r: r["unit"]):
        mine = out.setdefault(row["rule"], {**row, "scores": {}, "curves": {}})
        mine["scores"] |= {int(k): v for k, v in row.get("scores", {}).items()}
        mine["curves"] |= row.get("curves", {})
    return out


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    by_rule = merged(rows)
    scores = {name: row["scores"] for name, row in by_rule.items() if row["scores"]}
    best = [max(v for _, v in curve) for curve in by_rule.get(BASE, {}).get("curves", {}).values() if curve]
    goal = 0.95 * statistics.mean(best) if best else None
    lines = [
        "| rule | test accuracy [95 %] | n | above control | layers | 95 % | step | memory | predict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    order = sorted(by_rule, key=lambda n: -statistics.mean(scores[n].values()) if n in scores else 1)
    for name in order:
        row = by_rule[name]
        if row.get("misfit"):
            continue
        if name not in scores:
            lines.append(f"| {name} | {MISSING}{': ' + row['error'] if row.get('error') else ''} | 0 | | | | | | |")
            continue
        mean, interval, n = arm_summary(scores[name])
        ends = f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else ""
        ends += " (*)" if row["stale"] else ""
        said = [
            f"{mean:.4f}{ends}",
            str(n),
            above(name, scores),
            known(row),
            reached(row, goal),
            *cost(row),
        ]
        lines.append("| " + " | ".join([name, *said]) + " |")
    left = [f"{name} ({row['misfit'].split(';')[0]})" for name, row in by_rule.items() if row.get("misfit")]
    return lines + (["", "Not on this host: " + "; ".join(sorted(left)) + "."] if left else [])


def above(name: str, scores: Mapping[str, Mapping[int, float]]) -> str:
    if name == CONTROL:
        return "the control"
    if CONTROL not in scores:
        return MISSING
    pair = {CONTROL: scores[CONTROL], name: scores[name]}
    (c,) = compare(pair, baseline=CONTROL, delta=0.002, higher_is_better=True, resamples=0)
    return f"{'yes' if c.verdict == 'better' else '**no**'}, {c.difference:+.4f}"


def known(row: Mapping[str, Any]) -> str:
    if not row.get("probes"):
        return MISSING if row["section"] == "small" else "not probed"
    columns = zip(*(probe["layers"] for probe in row["probes"]), strict=True)
    return " ".join(f"{100 * statistics.mean(column):.1f}" for column in columns)


def reached(row: Mapping[str, Any], goal: float | None) -> str:
    if goal is None or not row["curves"]:
        return MISSING
    steps = [next((step for step, value in curve if value >= goal), None) for curve in row["curves"].values()]
    if any(step is None for step in steps):
        return "not reached"
    middle = statistics.median(step for step in steps if step is not None)
    time = (row.get("costs") or {}).get("time")
    return f"{middle:g} steps" + (f", {middle * time:.0f}" if time else "")


def cost(row: Mapping[str, Any]) -> list[str]:
    found = row.get("costs")
    if not found:
        return [MISSING] * 3
    time = f"{found['time']:.2f}x (A/A {found['aa']:.2f})" if "time" in found else "closed form"
    memory = f"{found['memory']:.2f}x" if found.get("memory") else "closed form" if "time" not in found else "unknown"
    return [time, memory, f"{found['predict']:g}, {found['predict_flops']:.2f}x"]


def targets(by_rule: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Each target, what was measured, and whether it is met."""
    means = {name: statistics.mean(row["scores"].values()) for name, row in by_rule.items() if row["scores"]}
    best: dict[str, float] = defaultdict(float)
    for name, mean in means.items():
        best[name.split(":")[0]] = max(best[name.split(":")[0]], mean)
    lines = ["| target | measured | |", "|---|---|---|"]
    for names, least in TARGETS:
        for name in names:
            goal = least if least > 0 else best[BASE] + least
            asked = f"{name} at least {goal:.4f}" if least > 0 else f"{name} within {-least:g} of {BASE}, at least {goal:.4f}"
            if name not in best or (least < 0 and BASE not in best):
                lines.append(f"| {asked} | {MISSING} | |")
            else:
                lines.append(f"| {asked} | {best[name]:.4f} | {'met' if best[name] >= goal else '**missed**'} |")
    for name, least in ABOVE:
        if name in best and CONTROL in best:
            over = best[name] - best[CONTROL]
            lines.append(
                f"| {name} at least {least:g} above the control | {over:+.4f} | {'met' if over >= least else '**missed**'} |"
            )
        else:
            lines.append(f"| {name} at least {least:g} above the control | {MISSING} | |")
    return lines


def depth_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    depths = sorted({int(d) for row in rows for d in row.get("depths", {})})
    lines = [
        "MNIST, 10 000 training images, blocks of 256; the whole net's test accuracy, and in brackets the best single layer's"
        " and which it is (ridge regression; means over two seeds).",
        "",
        "| rule | " + " | ".join(f"depth {d}" for d in depths) + " |",
        "|---|" + "---|" * len(depths),
    ]
    for row in sorted(rows, key=lambda r: r["rule"]):
        if row.get("misfit"):
            continue
        said = []
        for d in depths:
            runs = row.get("depths", {}).get(str(d))
            if not runs:
                said.append(MISSING)
                continue
            means = [statistics.mean(column) for column in zip(*(run["layers"] for run in runs), strict=True)]
            top = max(range(len(means)), key=means.__getitem__)
            said.append(f"{statistics.mean(run['net'] for run in runs):.4f} ({means[top]:.4f}, {top + 1})")
        lines.append(f"| {row['rule']} | " + " | ".join(said) + " |")
    return lines
