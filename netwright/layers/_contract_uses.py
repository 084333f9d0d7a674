"""What layers and norms have to work with: copies and saved states, vmap, compilers, exporters, data-parallel training."""

from __future__ import annotations

import copy
import importlib
import io
import tempfile
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.contract import Skip, expect
from netwright.layers._contract_numbers import Case, cases, default, near, state
from netwright.tensor import saving as checkpoint
from netwright.tensor.fused import compiler
from netwright.tensor.modules import SizedPart
from netwright.tensor.streams import generator


def copies(part: SizedPart) -> None:
    """deepcopy and safetensors change nothing, also after every change of structure; the class is found by name."""
    from safetensors.torch import load, save

    for case in cases(part):
        for change in (None, *part.changes):
            built, x = case.build(shaken=True), case.rows(12)
            if change is not None:
                change.apply(built, x)
            y, label = built(x), f"{case}{'' if change is None else f', after {change.name}'}"
            twin = copy.deepcopy(built)
            near("deepcopy", twin(x), y, 0.0, label)
            shared = {id(p) for p in twin.parameters()} & {id(p) for p in built.parameters()}
            expect(not shared, "a deepcopy shares parameters", given=label)
            fresh = case.build(seed=1)
            fresh.load_state_dict(load(save({k: v.contiguous() for k, v in built.state_dict().items()})) if state(built) else {})
            near("safetensors round trip", fresh(x), y, 0.0, label)
            with tempfile.TemporaryDirectory() as folder:
                path = checkpoint.save(nn.Sequential(built), Path(folder) / "c.safetensors")
                other = nn.Sequential(case.build(seed=1))
                checkpoint.load(other, path)
            near("netwright.tensor.saving", other(x), y, 0.0, label)
            expect(all(p.is_contiguous() for p in built.parameters()), "a parameter isn't contiguous", given=label)
            if change is not None:
                built.zero_grad()
                built(x).square().sum().backward()
                expect(all(p.grad is not None for p in built.parameters() if p.requires_grad), "no gradient", given=label)
    cls = part.cls
    if part.module.startswith("netwright."):
        folder_of = importlib.import_module(".".join(part.module.split(".")[:2]))
        expect(getattr(folder_of, cls.__name__, None) is cls, f"{folder_of.__name__}.{cls.__name__} is not the class")
        found = getattr(importlib.import_module(cls.__module__), cls.__qualname__, None)
        expect(found is cls, "the class isn't found where pickle looks", got=found)


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
