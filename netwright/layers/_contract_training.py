"""Layers and norms in training: gradients at all parameters, descent, two processes."""

from __future__ import annotations

import torch

from netwright.core import catalogue
from netwright.core.contract import Skip, expect
from netwright.layers._contract_cases import cases, default, near
from netwright.tensor.modules import SizedPart
from netwright.tensor.streams import generator


def used(part: SizedPart) -> None:
    """Every trainable parameter gets a gradient in a training step: none is dead, as data-parallel training demands."""
    for case in cases(part):
        built, x = case.build(shaken=True, train=True), case.rows(4)
        if not any(p.requires_grad for p in built.parameters()):
            continue  # this setting has nothing to train
        weight = torch.randn(built(x).shape, generator=generator(0, "probe", "weight"), dtype=torch.float64)
        (built(x) * weight).sum().backward()
        dry = [n for n, p in built.named_parameters() if p.requires_grad and (p.grad is None or not bool(p.grad.any()))]
        expect(not dry, "parameters without a gradient", given=case, got=dry)


def descent(part: SizedPart) -> None:
    """Fifty steps of Adam towards another module of the same kind bring the output nearer to it."""
    case = default(part)
    student, teacher, x = case.build(train=True), case.build(seed=5, shaken=True), case.rows(24)
    learns = [p for p in student.parameters() if p.requires_grad]
    if not learns:
        raise Skip("has nothing to train")
    target = teacher(x).detach()
    optimizer = torch.optim.Adam(learns, lr=1e-2)

    def gap() -> float:
        with torch.no_grad():
            return float((student(x) - target).square().mean())

    before = gap()
    for _ in range(50):
        optimizer.zero_grad()
        (student(x) - target).square().mean().backward()
        optimizer.step()
    after = gap()
    expect(after < before, "fifty steps don't bring it nearer to its target", got=after, wanted=f"below {before}")


def ddp(part: SizedPart) -> None:
    """Two processes on gloo: after a step on halves of a batch both hold what one process gets from the whole batch."""
    from netwright.layers._contract_parallel import two_processes

    if part.tags.batchwise or part.tags.stateful:
        raise Skip("in training it sees the whole batch or draws, so halves of a batch are another computation")
    if not any(p.requires_grad for p in default(part).build().parameters()):
        raise Skip("has nothing to train")
    if part.id not in {known.id for known in catalogue.parts()}:
        raise Skip("the two processes find parts in the catalogue, which hasn't got this one")
    apart, together = two_processes(part.id, default(part).options)
    for name, value in together.items():
        near(f"{name} after a step of data-parallel training", apart[name], value, 1e-6)
