"""What torch makes of layers and norms: vmap, compiled and exported programs, fused writings."""

from __future__ import annotations

import copy
import io
from contextlib import redirect_stderr
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core.contract import Skip, expect
from netwright.layers._contract_cases import Case, cases, default, near
from netwright.tensor.fused import compiler
from netwright.tensor.modules import SizedPart


def vmap(part: SizedPart) -> None:
    """vmap of grad over copies of the parameters agrees with a loop: what stacks of seeds are made of."""
    if part.tags.why_not_stackable:
        raise Skip(part.tags.why_not_stackable)
    for case in cases(part):
        copies_of = [case.build(seed=k, shaken=True, train=True) for k in range(3)]
        if not any(p.requires_grad for p in copies_of[0].parameters()):
            continue
        params, buffers = (
            {n: torch.stack([dict(named(m))[n].detach() for m in copies_of]) for n, _ in named(copies_of[0])}
            for named in (nn.Module.named_parameters, nn.Module.named_buffers)
        )
        x = torch.stack([case.rows(4, seed=k) for k in range(3)])
        skeleton = copy.deepcopy(copies_of[0])

        def loss(p: dict[str, Tensor], b: dict[str, Tensor], x: Tensor, net: Any = skeleton) -> Tensor:
            return torch.func.functional_call(net, {**p, **b}, (x,)).square().sum()

        stacked = torch.func.vmap(torch.func.grad(loss))(params, {n: b.clone() for n, b in buffers.items()}, x)
        for k, own in enumerate(copies_of):
            own(x[k]).square().sum().backward()
            scale = max([1.0, *(float(p.grad.abs().max()) for p in own.parameters() if p.grad is not None)])
            for name, p in own.named_parameters():
                if p.grad is not None:
                    near(f"vmap of grad, {name}", stacked[name][k] / scale, p.grad / scale, 1e-9, case)


def compiled(part: SizedPart) -> None:
    """torch.compile takes the whole module in one graph and gives the same outputs and gradients, at two batch sizes."""
    for train in (False, True) if part.tags.stateful else (True,):
        case = default(part)
        built = case.build(torch.float32, shaken=True, train=train)
        whole = torch.compile(copy.deepcopy(built), fullgraph=True, dynamic=True)
        for n in (4, 7):
            x = case.rows(n, dtype=torch.float32).requires_grad_()
            seeded = torch.random.fork_rng(devices=[])
            with seeded:
                torch.manual_seed(0)
                y = whole(x)
                torch.manual_seed(0)
                wanted = built(x)
            if not part.tags.stateful or not train:  # the compiler draws other random numbers
                near(f"compiled output, {n} rows", y, wanted, 2e-5)
                got, there = (torch.autograd.grad(v.square().sum(), x)[0] for v in (y, wanted))
                near(f"compiled gradient, {n} rows", got, there, 2e-4)


@torch.no_grad()
def exports(part: SizedPart) -> None:
    """torch.export takes the module with any number of rows, and the exported program gives the module's output."""
    case = default(part)
    built = case.build(torch.float32, shaken=True)
    with redirect_stderr(io.StringIO()):
        shapes = ({0: torch.export.Dim.DYNAMIC},)
        program = torch.export.export(built, (case.rows(4, dtype=torch.float32),), dynamic_shapes=shapes)
    for n in (4, 9):
        x = case.rows(n, dtype=torch.float32)
        near(f"exported, {n} rows", program.module()(x), built(x), 1e-5)


def fused(part: SizedPart) -> None:
    """fused=True equals the plain writing, gradients too, and keeps nothing for the backward but its input and parameters."""
    if all(option.name != "fused" for option in part.options):
        raise Skip("has no fused writing")
    plain = default(part)
    quick = Case(part, {**plain.options, "fused": True})
    a, b = (case.build(torch.float32, shaken=True) for case in (plain, quick))
    x = plain.rows(16, dtype=torch.float32).requires_grad_()
    held: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        held[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    torch._dynamo.utils.counters.clear()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = b(x)
    most = 4 * x.numel() + 4 * sum(t.numel() for t in (*b.parameters(), *b.buffers())) + 1024
    expect(sum(held.values()) <= most, "bytes kept for the backward", got=sum(held.values()), wanted=f"at most {most}")
    near("fused output", y, a(x), 2e-5)
    grads = [torch.autograd.grad(m(x).square().sum(), [x, *m.parameters()]) for m in (a, b)]
    broken = dict(torch._dynamo.utils.counters["graph_break"])
    expect(compiler.usable and not broken, "it isn't compiled as one graph", got=broken or "the compiler gave up")
    for ours, theirs in zip(grads[1], grads[0], strict=True):
        near("fused gradient", ours, theirs, 2e-4)
