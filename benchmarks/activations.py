"""Activations: time against F.gelu and bytes kept for the backward, as written and fused.

Every elementwise part at 2^16 and 2^20 numbers in float32, forward and forward + backward (with the gradients of its
learnable parameters), one thread; ratios are formed within rounds in which the peer and the part take turns. The row
"gelu again" is F.gelu once more: where it is off by more than a margin, there is no claim within that margin.
Also: torch's own kernel where it has one, sparsemax on rows of 1000 against the sort, cross-entropy on rows of 10, and,
where a GPU is found, time in bfloat16 at 2^26 against torch.relu and the peak memory of a training step.

    python benchmarks/activations.py [part ...]       with names only these parts, laid over what is on file
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import _vit
import torch
from _timing import OUT, ratios, write
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from netwright.activations._contract_settings import shift
from netwright.core import catalogue
from netwright.losses.classification.cross_entropy import mean as cross_entropy

F = nn.functional
SIZES = {"2^16": 2**16, "2^20": 2**20}
#: torch's own module, where it has one of the same function.
NATIVE: dict[str, nn.Module] = {
    "celu": nn.CELU(),
    "elu": nn.ELU(),
    "gelu": nn.GELU(),
    "hard-sigmoid": nn.Hardsigmoid(),
    "hard-swish": nn.Hardswish(),
    "hardshrink": nn.Hardshrink(),
    "hardtanh": nn.Hardtanh(),
    "leaky-relu": nn.LeakyReLU(),
    "logsigmoid": nn.LogSigmoid(),
    "mish": nn.Mish(),
    "prelu": nn.PReLU(),
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "selu": nn.SELU(),
    "sigmoid": nn.Sigmoid(),
    "silu": nn.SiLU(),
    "softplus": nn.Softplus(),
    "softshrink": nn.Softshrink(),
    "softsign": nn.Softsign(),
    "tanh": nn.Tanh(),
    "tanhshrink": nn.Tanhshrink(),
}
TRANSCENDENTAL = {
    "exp",
    "expm1",
    "sigmoid",
    "tanh",
    "erf",
    "erfc",
    "log",
    "log1p",
    "sin",
    "cos",
    "tan",
    "atan",
    "asinh",
    "pow",
    "softplus",
    "silu",
    "gelu",
    "mish",
    "elu",
    "log_sigmoid_forward",
    "sinh",
    "cosh",
    "logaddexp",
    "sinc",
    "celu",
    "selu",
    "atan2",
    "asin",
    "acos",
    "exp2",
    "log2",
    "special_erfc",
    "hypot",
    "softplus_backward",
    "acosh",
    "atanh",
}


class Count(TorchDispatchMode):
    """Counts calls of exponentials and their like: what a formula costs beyond arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        square = name == "pow" and isinstance(args[1], int)
        self.calls += name in TRANSCENDENTAL and not square
        return func(*args, **(kwargs or {}))


def exponentials(part: Any, built: Any) -> int:
    """Exponentials (sines, logarithms, ...) an element, in the writing the compiler gets; expm1, tanh, erf count as one."""
    x = torch.randn(8)
    options = {k: v for k, v in built.options.items() if k in part.fn_options}
    with Count() as count:
        (part.compiled or part.fn)(x, *built.learned(x), **options)
    return count.calls


def forward(f: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Any]:
    x = x.detach()

    def work() -> Any:
        with torch.no_grad():
            return f(x)

    return work


def both(f: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], Any]:
    leaf, g = x.detach().requires_grad_(), torch.randn_like(f(x).detach())
    inputs = [leaf, *(p for p in f.parameters() if p.requires_grad)] if isinstance(f, nn.Module) else [leaf]
    return lambda: torch.autograd.grad(f(leaf), inputs, g)


def kept(f: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Bytes an element kept for the backward: distinct storages, the input among them."""
    held: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        if t.numel() > 64:  # parameters aside
            held[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = f(x.detach().clone().requires_grad_())
    size = sum(held.values()) / x.numel()
    del y
    return round(size, 3)


def measure(name: str, rounds: int) -> dict[str, Any]:
    part = catalogue.get(name, "activation")
    plain, fused = (shift(part.build(channels=None, fused=f), 0) if part.learn else part.build(fused=f) for f in (False, True))
    variants: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "gelu again": F.gelu, "eager": plain, "fused": fused}
    if name in NATIVE:
        variants["native"] = NATIVE[name]
    row: dict[str, Any] = {key: {} for key in variants}
    for size, n in SIZES.items():
        x = torch.randn(n, generator=torch.Generator().manual_seed(0))
        for label, make in (("fwd", forward), ("fwdbwd", both)):
            found = ratios({key: make(f, x) for key, f in variants.items()}, unit="gelu", rounds=rounds, sample=0.015)
            for key, value in found.items():
                row[key][f"{label}_{size}"] = value
    x = torch.randn(4096)
    for key in ("eager", "fused"):
        row[key]["kept_bytes"] = kept(variants[key], x)
    return row


def targets(rows: dict[str, Any]) -> dict[str, Any]:
    """Which parts keep to the limits: time fused, forward + backward at 2^20, and bytes kept.

    No verdict where F.gelu timed against itself is off by more than the part is from its limit.
    """
    limits = {0: 1.5, 1: 1.5, 2: 1.8}
    limited = {name: row for name, row in rows.items() if row["exponentials"] in limits}
    found: dict[str, dict[str, Any]] = {"within": {}, "slower": {}, "no verdict": {}}
    for name, row in sorted(limited.items()):
        got, again = (row[key]["fwdbwd_2^20"]["median"] for key in ("fused", "gelu again"))
        limit = limits[row["exponentials"]]
        unclear = abs(again - 1) > abs(got / limit - 1)
        found["no verdict" if unclear else "within" if got <= limit else "slower"][name] = {
            "ratio": got,
            "limit": limit,
            "A/A": again,
        }
    declared = {name: catalogue.get(name, "activation").kept for name in rows}
    over = {n: r["fused"]["kept_bytes"] for n, r in rows.items() if r["fused"]["kept_bytes"] > declared[n]}
    return {**found, "no limit (more than two)": sorted(set(rows) - set(limited)), "keep more than declared": over}


def sparsemax(rounds: int) -> dict[str, Any]:
    """On 2^18 numbers in rows of d, in units of the sort-based writing; softmax beside it."""
    out = {}
    for d in (10, 64, 1000):
        x = torch.randn(2**18 // d, d, generator=torch.Generator().manual_seed(0))
        plain, fused = (catalogue.make("sparsemax", fused=f) for f in (False, True))
        works = {
            "sort": both(plain, x),
            "sort again": both(plain, x),
            "fused": both(fused, x),
            "softmax": both(lambda t: F.softmax(t, -1), x),
        }
        out[f"d={d}"] = ratios(works, unit="sort", rounds=rounds)
    return out


def rows_of_ten(rounds: int) -> dict[str, Any]:
    """Cross-entropy of 10 classes, forward + backward, in units of F.cross_entropy; 8192 rows."""
    x = torch.randn(8192, 10, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = torch.randint(10, (8192,), generator=torch.Generator().manual_seed(1))

    def work(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(loss(x, y), x)

    works = {"F.cross_entropy": work(F.cross_entropy), "again": work(F.cross_entropy), "padded to 16": work(cross_entropy)}
    out: dict[str, Any] = ratios(works, unit="F.cross_entropy", rounds=rounds)
    (ours,), (theirs,) = (torch.autograd.grad(f(x, y), x) for f in (cross_entropy, F.cross_entropy))
    out["largest difference of the gradient, relative"] = float((ours - theirs).abs().max() / theirs.abs().max())
    return out


def line(name: str, row: dict[str, Any]) -> str:
    """The row as it is printed: forward + backward at 2^20, in units of F.gelu."""
    again, eager, fused = (row[key]["fwdbwd_2^20"]["median"] for key in ("gelu again", "eager", "fused"))
    native = f"{row['native']['fwdbwd_2^20']['median']:5.2f}" if "native" in row else "     "
    kept = f"{row['eager']['kept_bytes']:g} -> {row['fused']['kept_bytes']:g}"
    return f"{name:22} again {again:5.2f}  eager {eager:7.2f}  fused {fused:5.2f}  native {native}  kept {kept}"


def main(names: list[str]) -> None:
    elementwise = [p.name for p in catalogue.parts("activation") if p.tags.shape == "elementwise"]  # type: ignore[attr-defined]
    known = OUT / "activations.json"
    old = json.loads(known.read_text(encoding="utf-8")) if names and known.is_file() else {}
    result: dict[str, Any] = {"unit": "F.gelu on the same input", "rows": {}} | old
    result["rows"] = {name: row for name, row in result["rows"].items() if name in elementwise}
    for name in names or elementwise:
        result["rows"][name] = measure(name, rounds=9)
        print(line(name, result["rows"][name]), flush=True)
    for name, row in result["rows"].items():
        part = catalogue.get(name, "activation")
        row["exponentials"] = exponentials(part, part.build())
    result["targets"] = targets(result["rows"])
    if not names:
        result["sparsemax"], result["cross_entropy"] = sparsemax(15), rows_of_ten(25)
        result["kept by a ViT of 12 blocks"] = _vit.kept()
        result["gpu"] = _vit.on_gpu(elementwise) if torch.cuda.is_available() else "no GPU was found"
    write("activations", result, show="targets")


if __name__ == "__main__":
    main(sys.argv[1:])
