"""How layers and norms are built, refused, filled, copied, saved and loaded."""

from __future__ import annotations

import copy
import importlib
import inspect
import math
import tempfile
from pathlib import Path

import torch
from torch import nn

from netwright.core.contract import expect
from netwright.layers._contract_cases import cases, near, raises, same_state, state
from netwright.tensor import saving as checkpoint
from netwright.tensor.modules import SizedPart
from netwright.tensor.streams import initialise


def arguments(part: SizedPart) -> None:
    """Bad sizes and options raise with their name and value; the class takes exactly what is declared."""
    sizes = {k: v for k, v in part.toy.items() if k in part.size_names}
    own = {k: v for k, v in part.toy.items() if k not in part.size_names}
    raises("an option that doesn't exist", "no-such-option", lambda: part.build(**part.toy, **{"no-such-option": 1}))
    for name in sizes:
        for wrong in (0, -1, 1.5, True, "one"):
            if name in ("padding", "channel_dim") and wrong in (0, -1) and wrong is not True:
                continue
            shown = f"{name}={wrong!r}"
            raises(shown, shown, lambda name=name, wrong=wrong: part.build(**{**sizes, name: wrong}, **own))
    required = [name for name, value in part.size_names.items() if value is None]
    for name in required:
        raises(f"without {name}", name, lambda name=name: part.build(**{k: v for k, v in part.toy.items() if k != name}))
    for option in part.options:
        other = f"not-{option.default}" if isinstance(option.default, str) or option.allowed else "one"
        shown = f"{option.name}={other!r}"
        raises(shown, shown, lambda option=option, other=other: part.build(**{**part.toy, option.name: other}))
        if option.bounds is not None and math.isfinite(option.bounds[0]):
            low = type(option.default)(option.bounds[0])
            shown = f"{option.name}={low!r}"
            raises(shown, shown, lambda option=option, low=low: part.build(**{**part.toy, option.name: low}))
    taken = list(inspect.signature(part.cls).parameters.values())
    named = {p.name: p.default for p in taken if p.kind is p.KEYWORD_ONLY}
    declared = {o.name: o.default for o in part.options}
    expect(named == declared, "the class's keywords aren't the declared options", got=named, wanted=declared)
    in_order = [p.name for p in taken if p.kind is not p.KEYWORD_ONLY]
    expect(in_order == list(part.size_names), "the class's sizes", got=in_order, wanted=list(part.size_names))


def initialised(part: SizedPart) -> None:
    """Built on meta it draws nothing; the seed then fills all, and every seed otherwise. Built on real tensors it is ready."""
    for case in cases(part):
        rng = torch.get_rng_state()
        filled = []
        for seed in (3, 3, 4):
            with torch.device("meta"):
                built = part.cls(**{**part.toy, **case.options})
            expect(all(t.is_meta for t in (*built.parameters(), *built.buffers())), "not all on the meta device", given=case)
            built.to_empty(device="cpu")
            for t in (*built.parameters(), *built.buffers()):
                t.data.fill_(math.nan if t.is_floating_point() else 77 if t.dtype != torch.bool else False)
            initialise(built, seed)
            filled.append(state(built))
        expect(torch.equal(rng, torch.get_rng_state()), "the global random generator was used", given=case)
        strange = sorted(built.no_decay - set(built._parameters))
        expect(not strange, f"no_decay names {strange}, which are no parameters", given=case)
        expect(not same_state(filled[0], filled[1]), "one seed gives two starts", given=case, got=same_state(*filled[:2]))
        for name, t in filled[0].items():
            empty = bool(t.isnan().any()) if t.is_floating_point() else t.dtype != torch.bool and bool((t == 77).any())
            expect(not empty, f"{name} isn't filled", given=case)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            first = state(part.cls(**{**part.toy, **case.options}))
            second = state(part.cls(**{**part.toy, **case.options}))
            torch.manual_seed(0)
            again = state(part.cls(**{**part.toy, **case.options}))
        varies = bool(same_state(filled[0], filled[2]))
        expect(bool(same_state(first, second)) == varies, "two modules built one after the other start alike", given=case)
        expect(not same_state(first, again), "torch.manual_seed doesn't decide what is drawn", given=case)


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
