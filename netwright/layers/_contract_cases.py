"""What the checks of layers and norms run on: a module at every setting, its inputs, and how results are compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.contract import expect
from netwright.core.errors import BadInput, UnknownName
from netwright.tensor.modules import SizedPart, drawn
from netwright.tensor.streams import generator


@final
@dataclass(frozen=True)
class Case:
    """One setting of one part."""

    part: SizedPart
    options: dict[str, Any]

    def __str__(self) -> str:
        return ", ".join(f"{k}={v!r}" for k, v in self.options.items()) or "default"

    def build(self, dtype: torch.dtype = torch.float64, seed: int = 0, shaken: bool = False, train: bool = False) -> Any:
        """The module drawn by the seed; shaken: parameters and running statistics moved off their start."""
        built = drawn(self.part.cls, **{**self.part.toy, **self.options}, seed=seed, dtype=dtype)
        if shaken:
            g = generator(seed, "probe", "shake")
            with torch.no_grad():
                for p in built.parameters():
                    if p.requires_grad:
                        p.add_(0.1 * torch.randn(p.shape, generator=g, dtype=torch.float64).to(p))
                if self.part.tags.stateful:
                    with torch.random.fork_rng(devices=[]):
                        torch.manual_seed(seed)
                        built.train()(self.rows(5, seed + 1, dtype))
        return built.train(train)

    def rows(self, n: int = 3, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        """n rows of standard normal numbers."""
        g = generator(seed, "probe", "rows")
        return torch.randn(n, *self.part.row(**self.options), generator=g, dtype=torch.float64).to(dtype)


def cases(part: SizedPart) -> Iterator[Case]:
    """Every setting the checks run, the toy's own first."""
    for options in part.points():
        yield Case(part, options)


def default(part: SizedPart) -> Case:
    return Case(part, part.points()[0])


def near(what: str, got: Tensor, wanted: Tensor, tolerance: float, given: Any = None) -> None:
    """Raise Wrong unless shapes agree and values are within tolerance * max(1, the largest wanted magnitude)."""
    expect(got.shape == wanted.shape, f"{what}: shape", given=given, got=tuple(got.shape), wanted=tuple(wanted.shape))
    if not wanted.numel():
        return
    a, b = got.detach().double(), wanted.detach().double()
    gap = (a - b).abs().nan_to_num(torch.inf)
    worst = int(gap.argmax())
    fits, label = float(gap.max()) <= tolerance * max(1.0, float(b.abs().max())), f"{what} (difference {float(gap.max()):.3g})"
    expect(fits, label, given=given, got=a.flatten()[worst].item(), wanted=b.flatten()[worst].item())


def raises(what: str, named: str, call: Any) -> None:
    """The call has to raise one of netwright's own errors that names what was wrong."""
    try:
        call()
    except (BadInput, UnknownName) as error:
        expect(named in str(error), f"{what}: the message doesn't name {named!r}", got=str(error))
        return
    except Exception as error:  # any other error is the failure being looked for
        expect(False, f"{what}: raises {type(error).__name__} ({error})", wanted="BadInput or UnknownName")
    expect(False, f"{what}: is accepted", wanted="BadInput or UnknownName")


def state(module: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, those that are not saved too, as they are now."""
    named = (*module.named_parameters(), *module.named_buffers())
    return {name: t.detach().clone() for name, t in named}


def same_state(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    """Names whose values differ."""
    return sorted(name for name in a.keys() | b.keys() if name not in a or name not in b or not torch.equal(a[name], b[name]))
