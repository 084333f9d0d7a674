"""What the checks of nets share: what fills the places, nets drawn by a seed, other inputs, and what has to be near or raise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from netwright.core.contract import expect
from netwright.engine.blocks import Factory
from netwright.nets._kind import Case, NetPart
from netwright.nets._toy import FILLERS
from netwright.tensor.streams import generator, initialise

#: Largest difference that the order of a sum explains.
TINY = 1e-12


def cases(part: NetPart) -> list[Case]:
    """The part's cases, their numbers in float64."""
    return [replace(case, x=case.x.double() if case.x.is_floating_point() else case.x) for case in part.cases()]


def fillings(part: NetPart) -> Iterator[tuple[str, dict[str, Factory]]]:
    """The place of the activation filled, that and the norm's, all places (by `mlp`, the activation's stays empty), none."""
    full = tuple(place for place in part.places if place != "activation" or "mlp" not in part.places)
    for what, places in (
        ("an activation", ("activation",)),
        ("activation and norm", ("activation", "norm")),
        ("all places filled", full),
        ("nothing filled", ()),
    ):
        yield what, {place: FILLERS[place] for place in places if place in part.places}


def usual(part: NetPart) -> dict[str, Factory]:
    """Activation and norm, where there are places for them."""
    return dict(fillings(part))["activation and norm"]


def on_meta(part: NetPart, case: Case, fill: Mapping[str, Factory], widths: tuple[int, ...] = ()) -> Any:
    with torch.device("meta"):
        return part.build(case.problem, widths or case.widths, fill, **case.options)


def drawn(part: NetPart, case: Case, fill: Mapping[str, Factory]) -> Any:
    """The net in float64 and evaluation, drawn by a seed, then parameters and running statistics moved off their start."""
    net = on_meta(part, case, fill)
    net.to_empty(device="cpu")
    initialise(net, 0)
    g = generator(0, "probe", "shake")
    with torch.no_grad():
        for t in (*net.parameters(), *net.buffers()):
            if t.is_floating_point():
                t.add_(0.1 * torch.rand(t.shape, generator=g))
    return net.double().eval()


def another(x: Tensor, most: int) -> Tensor:
    """Other values in place of these: numbers, or tokens up to `most`."""
    return x + 0.5 if x.is_floating_point() else (x + 1) % (most + 1)


def near(what: str, got: Tensor, wanted: Tensor, tolerance: float, given: Any) -> None:
    """Raise Wrong unless shapes agree and values are within tolerance * max(1, the largest wanted magnitude)."""
    expect(got.shape == wanted.shape, f"{what}: shape", given=given, got=tuple(got.shape), wanted=tuple(wanted.shape))
    gap = (got - wanted).abs().nan_to_num(torch.inf)
    most, worst = float(gap.max()), int(gap.argmax())
    fits = most <= tolerance * max(1.0, float(wanted.abs().max()))
    expect(fits, f"{what} by {most:.3g}", given=given, got=got.flatten()[worst].item(), wanted=wanted.flatten()[worst].item())


def raises(what: str, error: type[Exception], named: str, call: Callable[[], Any]) -> None:
    """The call has to raise this error, and its message to name what was wrong."""
    try:
        call()
    except error as raised:
        expect(named in str(raised), f"{what}: the message doesn't name {named!r}", got=str(raised))
    except Exception as raised:  # any other error is the failure being looked for
        expect(False, f"{what}: raises {type(raised).__name__} ({raised})", wanted=error.__name__)
    else:
        expect(False, f"{what}: is accepted", wanted=error.__name__)
