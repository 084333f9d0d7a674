"""Twenty steps of the authors' own optimizers on one small problem, as committed in optimizers.json.

    pip install schedulefree==1.4.1 prodigyopt==1.1.2 dadaptation==3.2 dog-optimizer==1.0.3 lion-pytorch==0.2.5 adamp==0.3.0
    python tests/golden/optimizers.py

A matrix (6, 4) and a vector (5,) in float64, with the gradient H (p - least) + 0.1 (p - least)^3 of a dense H of condition
1e3: all are drawn once and stand in the file. Each case holds the values after steps 1, 2, 5 and 20, those it is evaluated
at where they are others, and what it estimates on the way. Muon is KellerJordan/Muon at 857d1ad (muon.py), given by
MUON=path/to/muon.py, with its bfloat16 made float64.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FILE = Path(__file__).with_name("optimizers.json")
SHAPES = {"matrix": (6, 4), "vector": (5,)}
STEPS = 20
KEPT = (1, 2, 5, 20)


def problem() -> dict[str, Any]:
    """What is drawn: start and least of each tensor, and H over all values in a row."""
    draw = np.random.default_rng(333)
    n = sum(int(np.prod(shape)) for shape in SHAPES.values())
    basis, _ = np.linalg.qr(draw.standard_normal((n, n)))
    hessian = (basis * np.geomspace(4e-3, 4.0, n)) @ basis.T
    start, least = draw.standard_normal((2, n))
    return {"hessian": hessian.tolist(), "start": start.tolist(), "least": least.tolist()}


class Bowl(nn.Module):
    """The problem of a file: two parameters, whose gradients `slope` sets."""

    def __init__(self, given: dict[str, Any], dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.hessian, self.least, start = (torch.tensor(given[k], dtype=dtype) for k in ("hessian", "least", "start"))
        cut = start.split([int(np.prod(shape)) for shape in SHAPES.values()])
        self.matrix, self.vector = (nn.Parameter(t.clone().reshape(s)) for t, s in zip(cut, SHAPES.values(), strict=True))

    def values(self) -> Tensor:
        return torch.cat([p.detach().reshape(-1) for p in (self.matrix, self.vector)])

    def slope(self) -> None:
        off = self.values() - self.least
        g = self.hessian @ off + 0.1 * off**3
        self.matrix.grad, self.vector.grad = g[:24].reshape(6, 4).clone(), g[24:].clone()


def official() -> dict[str, tuple[str, dict[str, Any], dict[str, Any], Callable[..., Any], str]]:
    """Case -> (part, its options, lr and weight_decay, the class over parameters, package and version)."""
    from adamp import SGDP, AdamP
    from dadaptation import DAdaptAdam, DAdaptSGD
    from dog import DoG
    from lion_pytorch import Lion
    from prodigyopt import Prodigy
    from schedulefree import AdamWScheduleFree, SGDScheduleFree

    def named(package: str) -> str:
        return f"{package} {version(package)}"

    cases: dict[str, Any] = {}

    def case(name: str, part: str, ours: dict[str, Any], rates: dict[str, Any], cls: Any, package: str, **theirs: Any) -> None:
        cases[name] = (part, ours, rates, lambda params: cls(params, **rates, **theirs), package)

    moved = {"lr": 0.02, "weight_decay": 0.1}
    free = {"lr": 1.0, "weight_decay": 0.0}
    case("schedule-free", "schedule-free", {}, {"lr": 2.5e-3, "weight_decay": 0.0}, AdamWScheduleFree, named("schedulefree"))
    case(
        "schedule-free, moved",
        "schedule-free",
        {"beta1": 0.95, "beta2": 0.99, "eps": 1e-6, "warmup_steps": 6, "r": 1.5, "weight_lr_power": 1.0},
        moved,
        AdamWScheduleFree,
        named("schedulefree"),
        betas=(0.95, 0.99),
        eps=1e-6,
        warmup_steps=6,
        r=1.5,
        weight_lr_power=1.0,
    )
    case("schedule-free-sgd", "schedule-free-sgd", {}, {"lr": 0.1, "weight_decay": 0.0}, SGDScheduleFree, named("schedulefree"))
    own = {"warmup_steps": 6, "r": 1.5, "weight_lr_power": 1.0}
    case(
        "schedule-free-sgd, moved",
        "schedule-free-sgd",
        {"beta1": 0.8, **own},
        moved,
        SGDScheduleFree,
        named("schedulefree"),
        momentum=0.8,
        **own,
    )
    case("prodigy", "prodigy", {}, free, Prodigy, named("prodigyopt"))
    own = {"eps": 1e-6, "d0": 1e-5, "d_coef": 2.0, "growth_rate": 1.5}
    flags = {"decouple": False, "use_bias_correction": True, "safeguard_warmup": True}
    case(
        "prodigy, moved",
        "prodigy",
        {"beta1": 0.8, "beta2": 0.99, **own, **flags},
        {"lr": 1.0, "weight_decay": 0.1},
        Prodigy,
        named("prodigyopt"),
        betas=(0.8, 0.99),
        **own,
        **flags,
    )
    case("prodigy, decoupled", "prodigy", {}, {"lr": 1.0, "weight_decay": 0.1}, Prodigy, named("prodigyopt"))
    case("d-adapt-adam", "d-adapt-adam", {}, free, DAdaptAdam, named("dadaptation"))
    own = {"eps": 1e-6, "d0": 1e-5, "decouple": True, "use_bias_correction": True}
    case(
        "d-adapt-adam, moved",
        "d-adapt-adam",
        {"beta1": 0.8, "beta2": 0.99, **own},
        {"lr": 1.0, "weight_decay": 0.1},
        DAdaptAdam,
        named("dadaptation"),
        betas=(0.8, 0.99),
        **own,
    )
    case("d-adapt-sgd", "d-adapt-sgd", {}, free, DAdaptSGD, named("dadaptation"))
    case(
        "d-adapt-sgd, moved",
        "d-adapt-sgd",
        {"momentum": 0.9, "d0": 1e-5},
        {"lr": 1.0, "weight_decay": 0.1},
        DAdaptSGD,
        named("dadaptation"),
        momentum=0.9,
        d0=1e-5,
    )
    case("dog", "dog", {}, free, DoG, named("dog-optimizer"))
    case(
        "dog, moved",
        "dog",
        {"reps_rel": 1e-4, "eps": 1e-2},
        {"lr": 1.0, "weight_decay": 0.1},
        DoG,
        named("dog-optimizer"),
        reps_rel=1e-4,
        eps=1e-2,
    )
    case("lion", "lion", {}, {"lr": 1e-4, "weight_decay": 0.0}, Lion, named("lion-pytorch"))
    case("lion, moved", "lion", {"beta1": 0.8, "beta2": 0.95}, moved, Lion, named("lion-pytorch"), betas=(0.8, 0.95))
    case("adamp", "adamp", {}, {"lr": 1e-3, "weight_decay": 0.0}, AdamP, named("adamp"))
    own = {"eps": 1e-6, "delta": 0.9, "wd_ratio": 0.3, "nesterov": True}
    case("adamp, moved", "adamp", {"beta1": 0.8, "beta2": 0.99, **own}, moved, AdamP, named("adamp"), betas=(0.8, 0.99), **own)
    case("sgdp", "sgdp", {}, {"lr": 0.01, "weight_decay": 0.0}, SGDP, named("adamp"), momentum=0.9)
    own = {"momentum": 0.8, "nesterov": True, "delta": 0.9, "wd_ratio": 0.3, "eps": 1e-6}
    case("sgdp, moved", "sgdp", own, moved, SGDP, named("adamp"), dampening=0, **own)
    if "MUON" in os.environ:
        muon = _muon(Path(os.environ["MUON"]))
        source = "KellerJordan/Muon 857d1ad"
        case("muon", "muon", {}, {"lr": 0.02, "weight_decay": 0.0}, muon, source)
        case("muon, moved", "muon", {"momentum": 0.8}, {"lr": 0.05, "weight_decay": 0.1}, muon, source, momentum=0.8)
    return cases


def _muon(path: Path) -> Any:
    """SingleDeviceMuon of that file, its products in float64."""
    text = path.read_text(encoding="utf-8").replace("G.bfloat16()", "G.double()")
    spec = importlib.util.spec_from_loader("muon", loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    exec(compile(text, str(path), "exec"), module.__dict__)
    return module.SingleDeviceMuon


def run(bowl: Bowl, optimizer: Any, only: str = "") -> dict[str, Any]:
    """Values after each kept step; read at others where the optimizer has eval(); estimates of its first group."""
    row: dict[str, Any] = {"values": {}}
    if hasattr(optimizer, "train"):
        optimizer.train()
    for step in range(1, STEPS + 1):
        bowl.slope()
        optimizer.step()
        if step in KEPT:
            row["values"][str(step)] = bowl.values().tolist()
            if hasattr(optimizer, "eval"):
                optimizer.eval()
                row.setdefault("read", {})[str(step)] = bowl.values().tolist()
                optimizer.train()
    group = optimizer.param_groups[0]
    found = {name: float(group[name]) for name in ("d", "rbar", "G") if name in group}
    return row | ({"estimates": found} if found else {})


def main() -> None:
    given, cases = problem(), {}
    for name, (part, ours, rates, made, package) in official().items():
        bowl = Bowl(given)
        params = [bowl.matrix] if part == "muon" else [bowl.matrix, bowl.vector]
        cases[name] = {"part": part, "options": ours, **rates, "package": package, **run(bowl, made(params))}
    FILE.write_text(json.dumps({"problem": given, "torch": torch.__version__, "cases": cases}, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {len(cases)} cases of {FILE.name}")


if __name__ == "__main__":
    main()
