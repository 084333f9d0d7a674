"""What the full-size tasks reach with their published rates: test scores, and the wall time of each run.

One thread a run, on a shared machine.

    python evidence/commands/reach.py [mnist shakespeare cifar10] [--out FOLDER]

Needs the data (NETWRIGHT_DATA). Resumable: a study that is finished is not run again. Writes evidence/reach.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import netwright
from netwright.bench.environment import environment
from netwright.core.writing import write_whole

HERE = Path(__file__).resolve().parents[1]
#: name -> (task, task options, arms, seeds, what the issue of the first release asked for)
ASKED: dict[str, tuple[str, dict[str, Any], list[str], int, str]] = {
    "mnist": (
        "mnist",
        {"size": "full", "host": "mlp"},
        ["relu", "relu+mono-forward", "relu+frozen-hidden"],
        6,
        "backprop at least 0.980, mean of 6 seeds; Mono-Forward within 0.010 of it",
    ),
    "shakespeare": (
        "shakespeare",
        {"size": "full"},
        ["gelu"],
        1,
        "one run at most 1.80 nats a character, at most 0.5 M parameters",
    ),
    "cifar10": (
        "cifar10",
        {"size": "full", "host": "convnet"},
        ["relu"],
        1,
        "one run at least 0.75 in at most 45 minutes, at most 0.3 M parameters",
    ),
}


def reach(name: str, out: Path) -> dict[str, Any]:
    """One study, as a row of plain data."""
    task, options, arms, seeds, asked = ASKED[name]
    study = netwright.Study(task, arms, task_options=options, seeds=seeds, trials=1, match="none", out=out / name)
    result = study.run(print)
    return {
        "task": result.task,
        "metric": result.metric,
        "asked": asked,
        "tuned": False,
        "seeds": list(result.seeds),
        "steps": study.task.steps,
        "batch": study.task.batch,
        "command": study.command,
        "arms": [
            {
                "name": a.name,
                "mean": a.mean,
                "interval": a.interval,
                "scores": {str(k): v for k, v in a.scores.items()},
                "parameters": a.cost.params if a.cost else None,
                "wall_minutes_a_run": [round((r.seconds or 0) / 60, 2) for r in result.records if r.arm == a.name],
            }
            for a in result.arms
        ],
        "environment": environment(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*ASKED, []], default=[])
    parser.add_argument("--out", type=Path, default=Path("netwright-studies/reach"))
    given = parser.parse_args()
    path = HERE / "reach.json"
    for name in given.names or list(ASKED):
        rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        rows[name] = reach(name, given.out)
        write_whole(path, json.dumps(dict(sorted(rows.items())), indent=1) + "\n")
        print(json.dumps(rows[name]["arms"], indent=1))


if __name__ == "__main__":
    main()
