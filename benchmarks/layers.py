"""Layers: time and memory of functions on edges against the matrix product they amount to, and of others against peers.

    python benchmarks/layers.py [--rounds N] [--section edges rational hypercomplex] [--peers FOLDER] [--device cuda]

Unit of the section edges: forward and backward, with the gradient of the input, of nn.Linear(9 I -> O) in the same round: the
product that a cubic KAN layer of grid 5 amounts to (8 splines and a base function an input). One thread, processor time,
A/A row, random order in every round. *held*: bytes a layer keeps between its forward and backward beside its parameters,
in multiples of its input; *peak*: bytes of a whole step, from allocation events. Peers run their own code, which is not
ours to ship: --peers names a folder with clones of KindXiaoming/pykan, Blealtan/efficient-kan and ZiyaoLi/fast-kan;
without it their rows are missing. On a GPU (--device cuda) wall time, and everything in bfloat16 too.
Writes evidence/benchmarks/layers.json (layers-cuda.json on a GPU).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _timing
import torch
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.errors import NetwrightError
from netwright.engine.blocks import count_parameters
from netwright.engine.meter import peak_bytes

SHAPES = ((1024, 64, 64), (256, 784, 64))
GRID, ORDER = 5, 3
UNIT = "Linear(9 I)"
#: What is asked of a row, by its name: at most so many units.
TARGETS = {
    "kan, compiled": 1.2,
    "kan, fused": 1.3,
    "kan, fused, bfloat16 products": 0.7,
    "kan, adapted grid, compiled": 2.5,
}
#: Other layers of functions on edges, with the least they need, beside the sizes: compared in the same unit.
BASES = ("fast-kan", "chebyshev-kan", "hermite-kan", "legendre-kan", "wavelet-kan", "relu-kan")


def both(layer: nn.Module, x: Tensor) -> Callable[[], Any]:
    """Forward and backward, with the gradients of the input and of every parameter."""
    leaf = x.detach().clone().requires_grad_()
    inputs, g = [leaf, *(p for p in layer.parameters() if p.requires_grad)], torch.randn_like(layer(leaf).detach())
    return lambda: torch.autograd.grad(layer(leaf), inputs, g)


def forward(layer: nn.Module, x: Tensor) -> Callable[[], Any]:
    def work() -> Any:
        with torch.no_grad():
            return layer(x)

    return work


def held(layer: nn.Module, x: Tensor) -> float:
    """Bytes kept between forward and backward, parameters and buffers aside, over the bytes of the input."""
    own = {t.untyped_storage().data_ptr() for t in (*layer.parameters(), *layer.buffers())}
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() not in own:
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = layer(x.detach().clone().requires_grad_())
    size = sum(kept.values()) / (x.numel() * x.element_size())
    del y
    return round(size, 2)


def peak(work: Callable[[], Any], device: str) -> int | None:
    work()
    if device == "cpu":
        return peak_bytes(work)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def made(name: str, *sizes: int, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return catalogue.make(name, *sizes, **options)


def compiled(layer: nn.Module) -> nn.Module:
    return torch.compile(layer, dynamic=False)  # type: ignore[return-value]


def adapted(layer: Any, x: Tensor) -> Any:
    layer.update_grid(x)
    assert not layer.uniform
    return layer


# Peers ----------------------------------------------------------------------------------------------------------------


def peers(folder: Path | None, i: int, o: int) -> dict[str, nn.Module]:
    """Layers of other libraries, at their own defaults with grid 5 and order 3."""
    if folder is None:
        return {}
    sys.path[:0] = [str(folder / "efficient-kan" / "src"), str(folder / "fast-kan")]
    package = sys.modules.setdefault("kan", types.ModuleType("kan"))  # its __init__ imports much that a layer doesn't need
    package.__path__ = [str(folder / "pykan" / "kan")]
    found: dict[str, nn.Module] = {}
    torch.manual_seed(0)
    from efficient_kan import KANLinear
    from fastkan import FastKANLayer
    from kan.KANLayer import KANLayer

    found["efficient-kan"] = KANLinear(i, o)
    found["efficient-kan, compiled"] = compiled(KANLinear(i, o))
    found["fast-kan (its authors' code)"] = FastKANLayer(i, o)
    inner = KANLayer(in_dim=i, out_dim=o, num=GRID, k=ORDER)
    found["pykan"] = First(inner)
    return found


class First(nn.Module):
    """The first of a module's outputs."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)[0]


def commits(folder: Path | None) -> dict[str, str]:
    if folder is None:
        return {}
    names = [p for p in sorted(folder.iterdir()) if (p / ".git").exists()]
    show = ["git", "log", "-1", "--format=%h %cs"]
    return {p.name: subprocess.run(show, cwd=p, capture_output=True, text=True, check=False).stdout.strip() for p in names}


# Sections -------------------------------------------------------------------------------------------------------------


def edge_rows(b: int, i: int, o: int, folder: Path | None) -> dict[str, tuple[nn.Module, Tensor]]:
    g = torch.Generator().manual_seed(0)
    x, wide = 2 * torch.rand(b, i, generator=g) - 1, torch.randn(b, (GRID + ORDER + 1) * i, generator=g)
    torch.manual_seed(0)
    unit = nn.Linear((GRID + ORDER + 1) * i, o)
    kan = made("kan", i, o)
    width = count_parameters(kan) // (i + o)
    rows: dict[str, tuple[nn.Module, Tensor]] = {
        UNIT: (unit, wide),
        "A/A": (unit, wide),
        "Linear": (nn.Linear(i, o), x),
        "MLP of as many parameters": (nn.Sequential(nn.Linear(i, width), nn.SiLU(), nn.Linear(width, o)), x),
        "kan": (kan, x),
        "kan, compiled": (compiled(made("kan", i, o)), x),
        "kan, fused": (made("kan", i, o, fused=True), x),
        "kan, fused, bfloat16 products": (made("kan", i, o, fused=True, products="bfloat16"), x),
        "kan, adapted grid": (adapted(made("kan", i, o), x), x),
        "kan, adapted grid, compiled": (compiled(adapted(made("kan", i, o), x)), x),
        "kan, adapted grid, fused": (adapted(made("kan", i, o, fused=True), x), x),
    }
    for name in BASES:
        try:
            rows[f"{name}, fused"] = (made(name, i, o, fused=True), x)
        except NetwrightError as error:
            print(f"{name}: {error}")
    return rows | {name: (layer, x) for name, layer in peers(folder, i, o).items()}


def edges(given: argparse.Namespace) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for b, i, o in SHAPES:
        rows = edge_rows(b, i, o, given.peers)
        out[f"{b}x{i}->{o}"] = table(rows, UNIT, given)
    return out


def rational_rows(b: int, d: int, h: int) -> dict[str, tuple[nn.Module, Tensor]]:
    """A transformer's MLP with GELU, and with group rationals before both linear maps."""
    torch.manual_seed(0)
    x = torch.randn(b, d)
    mlp = nn.Sequential(nn.Linear(d, h), nn.GELU(), nn.Linear(h, d))

    def grkan(fused: bool) -> nn.Sequential:
        return nn.Sequential(made("kat", d, h, init="identity", fused=fused), made("kat", h, d, init="gelu", fused=fused))

    return {
        "GELU MLP": (mlp, x),
        "A/A": (mlp, x),
        "GELU MLP, compiled": (compiled(nn.Sequential(*mlp)), x),
        "kat": (grkan(False), x),
        "kat, fused": (grkan(True), x),
        "kat, compiled": (compiled(grkan(False)), x),
    }


def rational(given: argparse.Namespace) -> dict[str, Any]:
    shapes = ((1024, 256, 1024), (1576, 192, 768))
    return {f"{b}x{d}->{h}->{d}": table(rational_rows(b, d, h), "GELU MLP", given) for b, d, h in shapes}


def hypercomplex(given: argparse.Namespace) -> dict[str, Any]:
    out = {}
    for b, d in ((1024, 256), (1024, 512), (256, 1024)):
        torch.manual_seed(0)
        x, dense = torch.randn(b, d), nn.Linear(d, d)
        phm = made("phm", d, d)
        rows = {"Linear": (dense, x), "A/A": (dense, x), "phm, n = 4": (phm, x), "phm, n = 4, compiled": (compiled(phm), x)}
        out[f"{b}x{d}->{d}"] = table(rows, "Linear", given) | {
            "parameters": round(count_parameters(phm) / count_parameters(dense), 5)
        }
    return out


def table(rows: dict[str, tuple[nn.Module, Tensor]], unit: str, given: argparse.Namespace) -> dict[str, Any]:
    """name -> time of forward and backward and of forward alone over the unit's, bytes held and at the peak."""
    device, out = given.device, {}
    low = [torch.bfloat16] if device != "cpu" else []
    for dtype in (torch.float32, *low):
        placed = {name: (layer.to(device, dtype), x.to(device, dtype)) for name, (layer, x) in rows.items()}
        works = {name: synchronised(both(*pair), device) for name, pair in placed.items()}
        ahead = {name: synchronised(forward(*pair), device) for name, pair in placed.items()}
        measure = _timing.ratios if device == "cpu" else on_device
        times, alone = measure(works, unit, given.rounds), measure(ahead, unit, given.rounds)
        for name, pair in placed.items():
            mine = {"time": times[name], "forward": alone[name], "held": held(*pair), "peak": peak(works[name], device)}
            out[name if dtype == torch.float32 else f"{name} in {dtype}"] = mine
            print(
                f"{name:36} {mine['time']['median']:7.2f} {mine['forward']['median']:7.2f} held {mine['held']:7.2f}"
                f" peak {(mine['peak'] or 0) / 2**20:8.2f} MiB",
                flush=True,
            )
    return out


def synchronised(work: Callable[[], Any], device: str) -> Callable[[], Any]:
    def done() -> None:
        work()
        torch.cuda.synchronize()

    return work if device == "cpu" else done


def on_device(works: dict[str, Callable[[], Any]], unit: str, rounds: int) -> dict[str, dict[str, Any]]:
    """As _timing.ratios, by the wall clock."""
    for work in works.values():
        for _ in range(5):
            work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            begun = time.perf_counter()
            for _ in range(20):
                work()
            taken[name].append((time.perf_counter() - begun) / 20)
    ratios = {name: [a / b for a, b in zip(values, taken[unit], strict=True)] for name, values in taken.items()}
    return {name: _timing.summary(values) for name, values in ratios.items()}


def targets(tables: dict[str, Any]) -> list[str]:
    """What was asked of a row, what was measured, and whether the A/A row allows a verdict."""
    said = []

    def line(section: str, shape: str, name: str, most: float) -> None:
        rows = tables.get(section, {}).get(shape, {})
        if name not in rows:
            return
        got, again = rows[name]["time"]["median"], rows["A/A"]["time"]["median"]
        verdict = "no verdict" if abs(again - 1) > abs(got / most - 1) else "met" if got <= most else "missed"
        said.append(f"{shape} {name}: {got:.2f} (asked {most}, A/A {again:.2f}): {verdict}")

    for b, i, o in SHAPES:
        for name, most in TARGETS.items():
            line("edges", f"{b}x{i}->{o}", name, most)
    for shape in tables.get("rational", {}):
        line("rational", shape, "kat, fused", 1.3)
        line("rational", shape, "kat, compiled", 1.3)
    for shape, rows in tables.get("hypercomplex", {}).items():
        line("hypercomplex", shape, "phm, n = 4", 1.5)
        said.append(f"{shape} phm, n = 4: {rows['parameters']:.4f} of the parameters")
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--section", nargs="+", default=["edges", "rational", "hypercomplex"])
    parser.add_argument("--peers", type=Path, help="folder with clones of the peers; they are run, not shipped")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    sections = {"edges": edges, "rational": rational, "hypercomplex": hypercomplex}
    tables = {name: sections[name](given) for name in given.section}
    said = targets(tables)
    name = "layers" if given.device == "cpu" else f"layers-{given.device.split(':')[0]}"
    _timing.write(name, {"summary": said, "peers": commits(given.peers), **tables}, "summary")


if __name__ == "__main__":
    main()
