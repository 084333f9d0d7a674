"""Identities between activations, and which are the same function under two names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from netwright.activations._contract_settings import agree, module, rows, settings
from netwright.activations._kind import ActivationPart
from netwright.core import catalogue
from netwright.core.contract import Skip, expect


def _relative(tolerance: float, wanted: float) -> float:
    return tolerance * max(1.0, abs(wanted))


def identities(part: ActivationPart) -> None:
    """Declared identities hold, and so do alias_of and equals_at_init; what is equal at every setting is an alias."""
    if not (part.identities or part.equals_at_init or part.alias_of):
        raise Skip("declares no identity")
    for identity in part.identities:
        other = catalogue.get(identity.other)
        x = torch.linspace(*identity.domain, 402, dtype=torch.float64).reshape(67, 6)
        ours = module(part, 6, **identity.options)(x)
        theirs = identity.scale_y * module(other, 6, **identity.other_options)(identity.scale_x * x)  # type: ignore[arg-type]
        what = f"differs from {identity.other} ({identity.note or identity.options})"
        inputs, got, wanted = (t.flatten().tolist() for t in (x, ours, theirs))
        agree(what, inputs, got, wanted, partial(_relative, identity.tolerance))
    for name in (*part.equals_at_init, *filter(None, (part.alias_of,))):
        same = agreement(part, catalogue.get(name))  # type: ignore[arg-type]
        expect(same in ("alias", "init"), f"differs from {name} at the default setting")
        wanted = "alias_of" if same == "alias" else "equals_at_init"
        expect((name == part.alias_of) == (same == "alias"), f"equal to {name}; declare it as {wanted}")


def agreement(a: ActivationPart, b: ActivationPart) -> str:
    """Where two parts agree, gradients included: "alias" at the default and both perturbed settings, "init" at the default."""
    if a.tags.shape != b.tags.shape or a.ratio != b.ratio:
        return ""
    verdicts: list[bool] = []
    ours, theirs = (list(settings(p, 4, choices=False)) for p in (a, b))
    for i in range(max(len(ours), len(theirs))):
        (_, f), (_, g) = ours[min(i, len(ours) - 1)], theirs[min(i, len(theirs) - 1)]
        verdicts.append(all(torch.allclose(u, v, rtol=1e-9, atol=1e-10) for u, v in zip(trace(f), trace(g), strict=True)))
        if not verdicts[0]:
            return ""
    return "alias" if all(verdicts) else "init"


def trace(built: Any) -> tuple[Tensor, Tensor]:
    """Outputs and gradients (of a weighted sum) of a module of four channels on the same rows for every part."""
    x = torch.cat([r[:, :4] for r in rows(built.part, seed=7) if r.shape[1] >= 4]).requires_grad_()
    y = built(x)
    weight = torch.linspace(0.5, 1.5, y.numel(), dtype=y.dtype).reshape(y.shape)
    return y.detach(), torch.autograd.grad((y * weight).sum(), x)[0]


def twins(parts: Sequence[ActivationPart]) -> Iterator[tuple[ActivationPart, ActivationPart, str]]:
    """Every pair that agrees at its defaults, and how: "alias" or "init"."""
    traces = [trace(module(part, 4)) for part in parts]
    for (a, ours), (b, theirs) in combinations(zip(parts, traces, strict=True), 2):
        if all(u.shape == v.shape and torch.allclose(u, v, rtol=1e-9, atol=1e-10) for u, v in zip(ours, theirs, strict=True)):
            if found := agreement(a, b):
                yield a, b, found
