"""The golden trajectory: 20 steps of three tiny trainings on both engines, as committed in trajectory.json.

When the numbers move on purpose, raise ENGINE_VERSION in netwright/core/fingerprint.py and run this file to write them anew.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import toys  # noqa: E402

from netwright.core import catalogue  # noqa: E402
from netwright.core.fingerprint import ENGINE_VERSION  # noqa: E402
from netwright.engine.loop import train  # noqa: E402
from netwright.engine.stack import train_stack  # noqa: E402

FILE = Path(__file__).with_name("trajectory.json")
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd, batch norm, draws": (toys.Noisy, {}),
    "adam, clip, cosine, weight decay": (
        toys.Whole,
        {"optimizer": "adam", "clip": 0.5, "schedule": "cosine", "weight_decay": 0.1},
    ),
    "local losses, after_step": (toys.Local, {"optimizer": "adamw", "weight_decay": 0.01}),
}

TWINS = [part.name for part in catalogue.parts("optimizer") if getattr(part, "twin", None)]
CASES |= {f"optimizer {name}": (toys.Whole, {"optimizer": name, "weight_decay": 0.01}) for name in TWINS}
CASES |= {f"schedule {name}": (toys.Whole, {"schedule": name}) for name in ("constant", "cosine", "warmup-cosine")}


def trajectories() -> dict[str, Any]:
    """case -> engine -> curve of two seeds, rounded to what a change of processor or BLAS leaves."""
    out: dict[str, Any] = {}
    for name, (cls, changes) in CASES.items():
        settings = [toys.setting(seed, lr=0.05 * (seed + 1), **changes) for seed in (0, 1)]
        norm = "batch" if "batch" in name else "none"
        rules = [[toys.build(cls, s.seed, norm) for s in settings] for _ in range(2)]
        data = [toys.data(s.seed) for s in settings]
        loop = [train(r, d, s) for r, d, s in zip(rules[0], data, settings, strict=True)]
        stack = train_stack(rules[1], data, settings)
        out[name] = {k: [_rounded(o) for o in outs] for k, outs in (("loop", loop), ("stack", stack))}
    return out


def _rounded(outcome: Any) -> dict[str, Any]:
    total = sum(float(v.double().abs().sum()) for v in outcome.best_state.values())
    curve = [[step, float(f"{loss:.7g}"), float(f"{score:.7g}")] for step, loss, score in outcome.curve]
    return {"curve": curve, "best_step": outcome.best_step, "weights": float(f"{total:.7g}")}


if __name__ == "__main__":
    row = {"engine_version": ENGINE_VERSION, "trajectories": trajectories()}
    FILE.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {FILE.name} at ENGINE_VERSION {ENGINE_VERSION}")
