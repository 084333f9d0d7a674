"""What the checks of activations run on: modules at several settings, inputs, the reference, the smallest failing input."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from netwright.activations._kind import ActivationPart
from netwright.core.contract import Skip, expect
from netwright.core.errors import BadInput

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
#: value -> value * factor + shift. Dyadic, so that a perturbed option is the same number in every dtype.
PERTURBED = ((1.5, 0.25), (0.5, -0.0625))


def elementwise(part: ActivationPart) -> bool:
    return part.tags.shape == "elementwise"


def dtypes(part: ActivationPart, *others: torch.dtype) -> list[torch.dtype]:
    """The dtypes a part has to serve."""
    return [d for d in (*DTYPES, *others) if str(d).removeprefix("torch.") not in part.tags.no_dtypes]


def module(
    part: ActivationPart, channels: int = 1, dtype: torch.dtype = torch.float64, channel_dim: int = -1, **options: Any
) -> nn.Module:
    """The part's module; a stateful one in evaluation."""
    built = part.build(channels=channels, channel_dim=channel_dim, **options).to(dtype)
    return built.train(part.tags.shape != "stateful")


def perturb(part: ActivationPart, index: int) -> dict[str, Any]:
    """Options of the index-th perturbed setting: every number that is an option and no learnable parameter is moved."""
    factor, _ = PERTURBED[index]
    moved = {}
    learnt = {item.name for item in part.learn}
    for option in part.options:
        if isinstance(option.default, float) and option.name not in learnt:
            value = option.default * factor
            try:
                moved[option.name] = option.check(value, part.id)
            except BadInput:
                continue
    return moved


@torch.no_grad()
def shift(built: Any, index: int) -> Any:
    """Move every learnable parameter to the index-th perturbed setting; half-way to a bound it would cross."""
    factor, offset = PERTURBED[index]
    for item in built.part.learn:
        p = built.get_parameter(item.name)
        lo, hi = item.bounds or (-math.inf, math.inf)
        moved = p * factor + offset
        p.copy_(torch.where(moved < lo, (p + lo) / 2, torch.where(moved > hi, (p + hi) / 2, moved)))
    return built


def settings(part: ActivationPart, channels: int = 1, choices: bool = True) -> Iterator[tuple[str, nn.Module]]:
    """(label, module in float64): the default, the perturbed settings, with `choices` every other allowed option."""
    yield "default", module(part, channels)
    for index in range(len(PERTURBED)):
        moved = perturb(part, index)
        if moved or part.learn:
            yield f"perturbed setting {index + 1}", shift(module(part, channels, **moved), index)
    if choices:
        for option in part.options:
            for value in option.allowed or ():
                if value != option.default and option.name not in ("per", "learnable"):
                    yield f"{option.name}={value!r}", module(part, channels, **{option.name: value})


def arguments_of(part: ActivationPart, built: Any) -> tuple[list[Any], dict[str, Any]]:
    """The learnable parameters of a module, as the reference takes them, and its options."""
    learned = []
    for item, p in zip(part.learn, built.learned(torch.zeros(1, 1)), strict=True):
        values = p.detach().double().flatten().tolist()
        learned.append(tuple(values) if isinstance(built._inits[item.name], tuple) else values[0])
    return learned, {name: value for name, value in built.options.items() if name in part.fn_options}


def referenced(part: ActivationPart, built: nn.Module, x: Sequence[Any]) -> list[Any]:
    """The reference at each x: numbers for elementwise parts, rows for the others."""
    learned, options = arguments_of(part, built)
    assert part.reference is not None
    return [part.reference(value, *learned, **options) for value in x]


def scalar(built: nn.Module, x: Tensor) -> Tensor:
    """An elementwise module at each entry of a vector."""
    return built(x[:, None])[:, 0]


def grid(dtype: torch.dtype = torch.float64, kinks: Sequence[float] = ()) -> Tensor:
    """[-100, 100] in steps of 1/4, and magnitudes from 1e-6 to 10; with `kinks`, what is too near one is left out."""
    fine = torch.logspace(-6, 1, 57, dtype=torch.float64)
    x = torch.cat((torch.linspace(-100, 100, 801, dtype=torch.float64), fine, -fine)).to(dtype)
    for kink in kinks:
        x = x[(x - kink).abs() > 1e-2]
    return x


def rows(part: ActivationPart, seed: int = 0, dtype: torch.dtype = torch.float64) -> Iterator[Tensor]:
    """Batches of rows for the parts that aren't elementwise: short and long, narrow and wide."""
    g = torch.Generator().manual_seed(seed)
    for length in (2, 4, 10, 64):
        for scale in (0.5, 3.0):
            yield (scale * torch.randn(6, length, generator=g, dtype=torch.float64)).to(dtype)


def spread(dtype: torch.dtype) -> Callable[[float], float]:
    """The numeric rule: 4 ulp or 1e-5 relative; 0 too below 1e-36, where exponentials underflow."""
    info = torch.finfo(dtype)

    def tolerance(wanted: float) -> float:
        if math.isinf(wanted):
            return 0.0
        size = max(abs(wanted), info.tiny)
        ulp = info.eps * 2.0 ** math.floor(math.log2(size))
        return max(4 * ulp, 1e-5 * abs(wanted), 1e-36)

    return tolerance


def agree(
    what: str, x: Sequence[Any], got: Sequence[float], wanted: Sequence[float], tolerance: Callable[[float], float]
) -> None:
    """Raise Wrong at the smallest x where `got` is farther from `wanted` than tolerance(wanted)."""
    wrong = []
    for value, ours, theirs in zip(x, got, wanted, strict=True):
        if ours == theirs or (math.isnan(ours) and math.isnan(theirs)):
            continue
        if not abs(ours - theirs) <= tolerance(theirs):
            wrong.append((abs(value), value, ours, theirs))
    if wrong:
        _, value, ours, theirs = min(wrong)
        expect(False, f"{what} ({len(wrong)} of {len(x)} inputs)", given=value, got=ours, wanted=theirs)


def agree_rows(what: str, x: Tensor, got: Tensor, wanted: Any, relative: float) -> None:
    """Raise Wrong at the first row that differs from the reference by more than `relative` of its largest entry."""
    want = torch.as_tensor(wanted, dtype=torch.float64)
    expect(got.shape == want.shape, f"{what}: shape", given=tuple(x.shape), got=tuple(got.shape), wanted=tuple(want.shape))
    for row, ours, theirs in zip(x, got.double(), want, strict=True):
        near = (ours - theirs).abs().max() <= relative * theirs.abs().max().clamp(min=1e-30)
        if not near:
            expect(False, what, given=_short(row), got=_short(ours), wanted=_short(theirs))


def _short(row: Tensor) -> str:
    values = [f"{v:.6g}" for v in row.tolist()[:8]]
    return f"[{', '.join(values)}{', ...' if len(row) > 8 else ''}]"


STATELESS = ("elementwise", "rowwise", "gated", "channels")


def only(part: ActivationPart, *shapes: str) -> None:
    if part.tags.shape not in shapes:
        raise Skip(f"says nothing of the shape class {part.tags.shape}")
