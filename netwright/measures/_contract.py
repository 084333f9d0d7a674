"""Checks of measures: what is known on paper, the second writing, and that looking touches nothing."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from netwright.core.contract import Check, expect
from netwright.measures._kind import MeasurePart


def near(what: str, got: Mapping[str, Any], wanted: Mapping[str, Any], tolerance: float) -> None:
    """Every wanted value is there, within the tolerance relative to the largest."""
    for name, value in wanted.items():
        expect(name in got, f"{what}: no {name!r}", got=sorted(got))
        a, b = (torch.as_tensor(v, dtype=torch.float64) for v in (got[name], value))
        expect(a.shape == b.shape, f"{what}: the shape of {name}", got=tuple(a.shape), wanted=tuple(b.shape))
        off = float((a - b).abs().max()) / max(1e-300, float(b.abs().max()))
        expect(off <= tolerance, f"{what}: {name}", got=f"{off:.2g} off")


def known(part: MeasurePart) -> None:
    """On nets for which the value is known on paper it is that value."""
    for net, view, wanted in part.cases():
        near(f"a {type(net).__name__}", part.build()(net, view), wanted, 1e-9)


def reference(part: MeasurePart) -> None:
    """The second writing gives the same."""
    for net, view, _ in part.cases():
        near(f"a {type(net).__name__}", part.build()(net, view), part.reference(net, view, **part.resolve({})), 1e-9)


def untouched(part: MeasurePart) -> None:
    """Parameters, their gradients, buffers, modes, hooks and the global generator are bit for bit what they were."""
    for net, view, _ in part.cases():
        net.train()
        for p in net.parameters():
            p.grad = torch.ones_like(p)
        before, modes = copy.deepcopy(net.state_dict()), [m.training for m in net.modules()]
        state, asked = torch.get_rng_state(), [p.requires_grad for p in net.parameters()]
        part.build()(net, view)
        same = all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True))
        expect(same, "the state of the net moved")
        expect([m.training for m in net.modules()] == modes, "a module's mode changed")
        expect([p.requires_grad for p in net.parameters()] == asked, "what learns changed")
        expect(all(isinstance(p.grad, Tensor) and bool((p.grad == 1).all()) for p in net.parameters()), "gradients were touched")
        expect(torch.equal(state, torch.get_rng_state()), "it draws from the global generator")
        hooks = [m for m in net.modules() if m._forward_hooks or m._forward_pre_hooks or m._backward_hooks]
        expect(not hooks, "hooks are left behind")


CHECKS = (Check("known", known), Check("reference", reference), Check("untouched", untouched))
