"""Checks of a stateful activation: training and evaluation against their references, and what each leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from netwright.activations._contract_settings import PERTURBED, agree_rows, perturb, shift
from netwright.activations._kind import ActivationPart
from netwright.core.contract import Skip, expect

LENGTHS = (2, 4, 10)


def _only_stateful(part: ActivationPart) -> None:
    if part.tags.shape != "stateful":
        raise Skip(f"says nothing of the shape class {part.tags.shape}")
    expect(part.reference_eval is not None, "declares no reference_eval=, the second writing of what evaluation computes")


def _modules(part: ActivationPart, dtype: torch.dtype = torch.float64) -> Iterator[tuple[str, Any]]:
    """(label, module in training) for rows of every length, at the default, perturbed and every other setting."""
    for length in LENGTHS:
        yield "default", part.build(channels=length, channel_dim=-1).to(dtype)
        for index in range(len(PERTURBED)):
            moved = perturb(part, index)
            if moved or part.learn:
                built = part.build(channels=length, channel_dim=-1, **moved).to(dtype)
                yield f"perturbed setting {index + 1}", shift(built, index)
        for option in part.options:
            for value in option.allowed or ():
                if value != option.default and option.name != "learnable":
                    built = part.build(channels=length, channel_dim=-1, **{option.name: value}).to(dtype)
                    yield f"{option.name}={value!r}", built


def _batch(length: int, seed: int) -> Tensor:
    return 2 * torch.randn(7, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


def _plain(built: Any, x: Tensor) -> tuple[list[Any], dict[str, Any]]:
    """Learnable parameters and statistics as the references take them (a number, or one a channel), and the options."""
    part = built.part
    values = [p.detach() for p in built.learned(x)]
    values = [v.expand(x.shape[-1]).tolist() if built.per == "channel" else v.tolist() for v in values]
    for item in part.state:
        buffer = built.get_buffer(item.name).double()
        values.append(buffer.tolist() if item.per == "channel" else buffer.item())
    return values, {name: value for name, value in built.options.items() if name in part.fn_options}


def training(part: ActivationPart) -> None:
    """Three steps of training equal the reference: outputs, draws taken from the module's generator, new statistics."""
    _only_stateful(part)
    assert part.reference is not None
    for label, built in _modules(part):
        built.train()
        for step in range(3):
            x = _batch(built.channels, step)
            built.generator = torch.Generator().manual_seed(step)
            values, options = _plain(built, x)
            given = {**options, "dim": -1}
            draws = part.draw(x, torch.Generator().manual_seed(step), **given) if part.draw else ()
            wanted = part.reference(x.tolist(), *values, *(d.tolist() for d in draws), **options)
            rows, statistics = (wanted[0], wanted[1:]) if part.state else (wanted, ())
            agree_rows(f"step {step} of training at the {label}", x, built(x), rows, 1e-9)
            for item, new in zip(part.state, statistics, strict=True):
                got = built.get_buffer(item.name).double()
                wanted_new = torch.as_tensor(new, dtype=torch.float64).expand_as(got)
                near = torch.allclose(got, wanted_new, rtol=1e-9, atol=1e-12)
                expect(near, f"{item.name} after step {step} at the {label}", got=got.tolist(), wanted=wanted_new.tolist())


def evaluation(part: ActivationPart) -> None:
    """After training, evaluation equals its reference, draws nothing and changes nothing; gradients are never NaN."""
    _only_stateful(part)
    assert part.reference_eval is not None
    for label, built in _modules(part):
        x = _batch(built.channels, 5)
        built.train()(x + 1.0)
        built.eval()
        before, state = [b.clone() for b in built.buffers()], torch.get_rng_state()
        values, options = _plain(built, x)
        agree_rows(f"evaluation at the {label}", x, built(x), part.reference_eval(x.tolist(), *values, **options), 1e-9)
        changed = not all(torch.equal(a, b) for a, b in zip(before, built.buffers(), strict=True))
        expect(not changed, "evaluation changes a statistic")
        expect(torch.equal(state, torch.get_rng_state()), "evaluation draws random numbers")
        for mode in (True, False):
            for given in (x, 0 * x + 3.0, x[:1], 1e4 * x):  # a constant batch has no variance, nor has a single row
                given = given.clone().requires_grad_()
                trained = [p for p in built.parameters() if p.requires_grad]
                gradients = torch.autograd.grad(built.train(mode)(given).sum(), (given, *trained))
                expect(not any(g.isnan().any() for g in gradients), f"a gradient is NaN (training={mode})", given=given[:1])
