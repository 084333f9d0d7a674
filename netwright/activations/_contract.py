"""The contract of an activation: checks of the module here, of the function in _contract_<property>.py."""

from __future__ import annotations

import copy
import importlib
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from netwright.activations import _contract_support as _support
from netwright.activations._contract_identities import identities
from netwright.activations._contract_numbers import (
    backward,
    gradcheck,
    gradients,
    infinities,
    limits,
    numbers,
    reference,
    values,
)
from netwright.activations._contract_settings import dtypes, module, settings, shift
from netwright.activations._contract_state import evaluation, training
from netwright.activations._contract_tags import monotone, parity, scale_invariant, smooth
from netwright.activations._kind import ActivationPart
from netwright.core.contract import Check, Skip, expect
from netwright.core.errors import BadInput, NetwrightError, UnknownName
from netwright.tensor.fused import compiler, uncompiled

WIDTH = 6


def batch(*shape: int, seed: int = 11, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def same(what: str, got: Tensor, wanted: Tensor, tolerance: float = 0.0) -> None:
    """Raise Wrong unless shapes and dtypes are equal and values within tolerance * the largest wanted magnitude."""
    expect(got.shape == wanted.shape, f"{what}: shape", got=tuple(got.shape), wanted=tuple(wanted.shape))
    expect(got.dtype == wanted.dtype, f"{what}: dtype", got=got.dtype, wanted=wanted.dtype)
    if wanted.numel() == 0:
        return
    got, wanted = got.detach(), wanted.detach()
    gap = (got.double() - wanted.double()).abs().nan_to_num(torch.inf).flatten()
    worst = int(gap.argmax())
    scale = max(1.0, float(wanted.double().abs().max()))
    expect(
        float(gap[worst]) <= tolerance * scale,
        f"{what} (largest difference {float(gap[worst]):.3g}, at entry {worst})",
        got=got.flatten()[worst].item(),
        wanted=wanted.flatten()[worst].item(),
    )


def shape(part: ActivationPart) -> None:
    """Any leading shape, empty and non-contiguous input, any channel_dim; rows and entries don't see each other."""
    built = module(part, WIDTH)
    x = batch(5, 3, WIDTH)
    before = x.clone()
    y = built(x)
    expect(torch.equal(x, before), "changes its input")
    same("called twice on the same input", built(x), y)
    expect(y.shape == (5, 3, int(WIDTH * part.ratio)), "shape", got=tuple(y.shape), wanted=f"(5, 3, {WIDTH} * ratio)")
    for leading in ((), (15,), (1, 5, 3)):
        flat = x.reshape(*leading, WIDTH) if leading else x[2, 1]
        same(f"leading shape {leading}", built(flat), y.reshape(*leading, y.shape[-1]) if leading else y[2, 1], 1e-12)
    for empty in ((0, WIDTH), (2, 0, WIDTH)):
        expect(built(x.new_empty(empty)).shape == (*empty[:-1], y.shape[-1]), f"empty input of shape {empty}")
    strided = torch.stack((x, x), -1).flatten(-2)[..., ::2]
    same("non-contiguous input", built(strided), y, 1e-12)
    expanded = x[:1, :1].expand(4, 3, WIDTH)
    same("expanded input", built(expanded), built(expanded.contiguous()), 1e-12)
    across = module(part, WIDTH, channel_dim=1)
    same("channel_dim=1", across(x.movedim(-1, 1)), y.movedim(-1, 1), 1e-12)
    touched = x.clone()
    touched[2, 1] += 1.0
    changed = (built(touched) != y).any(-1)
    expect(not changed[torch.arange(5) != 2].any() and not changed[2, [0, 2]].any(), "a row depends on another row")
    if part.tags.shape == "elementwise":
        scalar_module = part.build().double() if not _per_channel(part) else None
        if scalar_module is not None:
            same("a tensor without dimensions", scalar_module(x[0, 0, 0]), y[0, 0, 0], 1e-12)
        touched = x.clone()
        touched[..., 2] += 1.0
        others = torch.arange(WIDTH) != 2
        expect(torch.equal(built(touched)[..., others], y[..., others]), "an entry depends on another; is it rowwise?")


def _per_channel(part: ActivationPart) -> bool:
    return any(option.name == "per" and option.default == "channel" for option in part.options)


def dtype(part: ActivationPart) -> None:
    """The output and the gradient have the input's dtype; a dtype without a kernel and whole numbers are refused."""
    for kept in dtypes(part, torch.float64):
        built = module(part, WIDTH)  # parameters of another dtype than the input
        x = batch(4, WIDTH, dtype=kept).requires_grad_()
        y = built(x)
        expect(y.dtype == kept, "dtype of the output", given=kept, got=y.dtype, wanted=kept)
        (gradient,) = torch.autograd.grad(y.sum(), x)
        expect(gradient.dtype == kept, "dtype of the gradient", given=kept, got=gradient.dtype, wanted=kept)
    refused = [torch.int64, *(getattr(torch, name) for name in part.tags.no_dtypes)]
    for given in refused:
        _raises(f"input of {given}", str(given), lambda given=given: module(part, WIDTH)(torch.ones(4, WIDTH).to(given)))


def _raises(what: str, named: str, call: object) -> None:
    """The call has to raise one of netwright's own errors that names what was wrong."""
    try:
        call()  # type: ignore[operator]
    except NetwrightError as error:
        expect(isinstance(error, (BadInput, UnknownName)), f"{what}: kind of error", got=type(error).__name__)
        expect(named in str(error), f"{what}: the message doesn't name {named!r}", got=str(error))
        return
    except Exception as error:  # any other error is the failure being looked for
        expect(False, f"{what}: raises {type(error).__name__} ({error})", wanted="BadInput or UnknownName")
    expect(False, f"{what}: is accepted", wanted="BadInput or UnknownName")


def arguments(part: ActivationPart) -> None:
    """Bad arguments raise with their name, their value and what is allowed."""
    _raises("an option that doesn't exist", "no-such-option", lambda: part.build(**{"no-such-option": 1}))
    _raises("channels=0", "channels=0", lambda: part.build(channels=0))
    _raises("channels=True", "channels=True", lambda: part.build(channels=True))
    _raises("channel_dim=1.5", "channel_dim=1.5", lambda: part.build(channel_dim=1.5))
    _raises("fused='yes'", "fused='yes'", lambda: part.build(fused="yes"))
    for option in part.options:
        wrong = f"not-{option.default}" if isinstance(option.default, str) or option.allowed else "one"
        shown = f"{option.name}={wrong!r}"
        _raises(shown, shown, lambda option=option, wrong=wrong: module(part, WIDTH, **{option.name: wrong}))
        if option.bounds is not None:
            low = option.bounds[0] - 1.0
            shown = f"{option.name}={low!r}"
            _raises(shown, shown, lambda option=option, low=low: module(part, WIDTH, **{option.name: low}))
    if part.learn:
        _raises("per='channel' without channels", "channels=", lambda: part.build(per="channel"))
        x = torch.zeros(2, WIDTH + 1)
        _raises("a wrong number of channels", f"channels={WIDTH}", lambda: module(part, WIDTH, per="channel")(x))
    if part.tags.shape == "gated":
        _raises("an odd number of channels", "even", lambda: module(part, 3)(torch.zeros(2, 3)))
    if part.tags.shape != "elementwise":
        _raises("channel_dim=3 of a matrix", "channel_dim=3", lambda: module(part, WIDTH, channel_dim=3)(torch.zeros(2, WIDTH)))


def learnable(part: ActivationPart) -> None:
    """Learnable parameters: bounds, weight decay, one a channel, and fixed ones."""
    if not part.learn:
        raise Skip("learns nothing")
    names = {item.name for item in part.learn}
    built = shift(module(part, WIDTH, per="tensor"), 0)
    expect({n for n, _ in built.named_parameters()} == names, "parameters", got=names, wanted="those declared in learn=")
    kept = {item.name for item in part.learn if not item.decay}
    expect(built.no_decay == kept, "no_decay", got=built.no_decay, wanted=kept)
    x = batch(4, WIDTH)
    y = built(x)
    each = module(part, WIDTH, per="channel")
    with torch.no_grad():
        for name, p in each.named_parameters():
            p.copy_(built.get_parameter(name).reshape(-1, 1).expand(p.numel() // WIDTH, WIDTH).reshape(p.shape))
    same("equal parameters a channel and one for all", each(x), y, 1e-12)
    across = module(part, WIDTH, channel_dim=1, per="channel")
    across.load_state_dict(each.state_dict())
    across.requires_grad_(True)
    with torch.no_grad():
        for item in part.learn:
            across.get_parameter(item.name)[..., 2] += 0.5
    wide = across(batch(4, WIDTH, 3))
    with torch.no_grad():
        for item in part.learn:
            each.get_parameter(item.name)[..., 2] += 0.5
    same("parameters along channel_dim=1", wide, each(batch(4, WIDTH, 3).movedim(1, -1)).movedim(-1, 1), 1e-12)
    gradients = torch.autograd.grad(built(x).square().sum(), list(built.parameters()))
    expect(all(g.isfinite().all() for g in gradients), "the gradient of a parameter isn't finite")
    expect(any(g.abs().sum() > 0 for g in gradients), "no parameter has a gradient")
    for item in part.learn:
        if item.bounds is not None:
            for bound, outside in zip(item.bounds, (item.bounds[0] - 1, item.bounds[1] + 1), strict=True):
                here, there = module(part, WIDTH), module(part, WIDTH)
                with torch.no_grad():
                    here.get_parameter(item.name).fill_(bound)
                    there.get_parameter(item.name).fill_(outside)
                same(f"{item.name}={outside} beyond its bound", there(x), here(x))
    fixed = module(part, WIDTH, learnable=False)
    expect(not any(p.requires_grad for p in fixed.parameters()), "learnable=False leaves parameters that are trained")


def copies(part: ActivationPart) -> None:
    """deepcopy and a safetensors round trip change nothing; the class is found under its name, as pickling needs."""
    from safetensors.torch import load, save

    built, x = shift(module(part, WIDTH), 0), batch(4, WIDTH)
    y = built(x)
    twin = copy.deepcopy(built)
    same("deepcopy", twin(x), y)
    expect(not {id(p) for p in twin.parameters()} & {id(p) for p in built.parameters()}, "a deepcopy shares parameters")
    restored = module(part, WIDTH)
    restored.load_state_dict(load(save(built.state_dict())) if built.state_dict() else {})
    same("safetensors round trip", restored(x), y)
    copy.deepcopy(part.build(channels=WIDTH, fused=True))
    cls = type(built)
    expect(cls is part.module_type(), "the class is not made once")
    expect(issubclass(cls, nn.Module) and cls.__name__ == part.cls, "the class's name", got=cls.__name__, wanted=part.cls)
    expect("fused" in inspect.signature(cls).parameters, "the class has no readable signature")
    if part.origin == "netwright" and part.module.startswith("netwright."):
        found = getattr(importlib.import_module(cls.__module__), cls.__qualname__, None)
        expect(found is cls, f"{cls.__module__}.{cls.__qualname__} is not the class", got=found, wanted=cls)


def meta(part: ActivationPart) -> None:
    """Building on the meta device draws nothing; reset_parameters(generator) then fills all as a build does."""
    state = torch.get_rng_state()
    with torch.device("meta"):
        built = module(part, WIDTH, torch.float32)
    expect(all(p.is_meta for p in built.parameters()), "a parameter isn't on the meta device")
    y = built(torch.empty(4, WIDTH, device="meta"))
    expect(y.is_meta and y.shape[-1] == int(WIDTH * part.ratio), "the forward on meta", got=(y.device, tuple(y.shape)))
    built.to_empty(device="cpu")
    with torch.no_grad():
        for p in built.parameters():
            p.fill_(torch.nan)
    reset: Any = built.reset_parameters
    reset(torch.Generator().manual_seed(0))
    fresh = module(part, WIDTH, torch.float32)
    for name, p in built.named_parameters():
        same(f"{name} after reset_parameters", p.detach(), fresh.get_parameter(name).detach())
    expect(torch.equal(state, torch.get_rng_state()), "the global random generator was used")


def vmap(part: ActivationPart) -> None:
    """vmap and vmap of grad agree with a loop, over inputs and over copies of the parameters."""
    for label, built in settings(part, WIDTH, choices=False):
        x = batch(3, 4, WIDTH)
        weight = batch(*built(x[0]).shape, seed=13)
        params = {name: torch.stack([p.detach() + 0.01 * k for k in range(3)]) for name, p in built.named_parameters()}

        def loss(p: dict[str, Tensor], x: Tensor, built: nn.Module = built, weight: Tensor = weight) -> Tensor:
            return (torch.func.functional_call(built, p, (x,)) * weight).sum()

        both = torch.func.grad(loss, argnums=(0, 1))
        stacked = torch.func.vmap(both)(params, x)
        for k in range(3):
            own, at_x = both({name: p[k] for name, p in params.items()}, x[k])
            same(f"vmap of grad at the {label}, input", stacked[1][k], at_x, 1e-10)
            for name, gradient in own.items():
                same(f"vmap of grad at the {label}, {name}", stacked[0][name][k], gradient, 1e-10)


def autocast(part: ActivationPart) -> None:
    """Under autocast the output keeps the input's dtype and its value."""
    built, x = module(part, WIDTH, torch.float32), batch(4, WIDTH, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = built(x)
    same("under autocast", y, built(x), 1e-2)


def saved_bytes(part: ActivationPart) -> None:
    """fused=True keeps what is declared (the input: 4 bytes an element in float32) and the parameters, no more."""
    if part.tags.shape == "stateful":
        raise Skip("stateful: evaluated as it is written")
    built, x = module(part, WIDTH, torch.float32, fused=True), batch(64, WIDTH, dtype=torch.float32)
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with uncompiled(), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        built(x.requires_grad_())
    wanted = part.kept * x.numel() + sum(8 * p.numel() for p in built.parameters())  # as stored, and clamped to bounds
    expect(sum(kept.values()) <= wanted, "bytes kept for the backward", got=sum(kept.values()), wanted=f"at most {wanted}")


def fused(part: ActivationPart) -> None:
    """fused=True equals the plain writing: output, gradients of input and parameters, double backward, vmap."""
    if part.tags.shape == "stateful":
        raise Skip("stateful: evaluated as it is written")
    plain = shift(module(part, WIDTH, torch.float32), 0)
    quick = shift(module(part, WIDTH, torch.float32, fused=True), 0)
    x = (3 * batch(32, WIDTH, dtype=torch.float32)).requires_grad_()
    weight = batch(*plain(x).shape, seed=17, dtype=torch.float32)
    results = []
    for built in (plain, quick):
        y = built(x)
        first = torch.autograd.grad((y * weight).sum(), (x, *built.parameters()), create_graph=True)
        slopes = torch.func.vmap(torch.func.grad(lambda row, b=built: b(row).sum()))(x.detach())
        second = torch.autograd.grad(torch.stack([g.square().sum() for g in (y, *first)]).sum(), x)
        results.append((y, *first, *second, slopes))
    if not compiler.usable:
        _without_compiler()
    names = (
        "output",
        "gradient",
        *(f"gradient of {item.name}" for item in part.learn),
        "second gradient",
        "vmap of grad",
    )
    for name, ours, theirs in zip(names, results[1], results[0], strict=True):
        same(f"fused {name}", ours.detach(), theirs.detach(), 2e-5)


def _without_compiler() -> None:
    """Skip where no compiler works at all; Wrong where only this part can't be compiled."""
    compiler.usable = True  # the next part gets its own chance
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(3))
    except Exception as error:
        raise Skip(f"no compiler works here ({str(error).strip().splitlines()[0][:120]})") from None
    expect(False, "the compiler works, but not on this part")


def compiled(part: ActivationPart) -> None:
    """An outer torch.compile takes the module whole and gives the same output and gradient, fused or not."""
    for chosen in (False, True):
        built = shift(module(part, WIDTH, torch.float32, fused=chosen), 0)
        x = (2 * batch(8, WIDTH, dtype=torch.float32)).requires_grad_()
        whole = torch.compile(built, fullgraph=True)
        try:
            y = whole(x)
        except torch._dynamo.exc.BackendCompilerFailed:
            _without_compiler()
            raise
        same("compiled output", y.detach(), built(x).detach(), 2e-5)
        got, wanted = (torch.autograd.grad(f.sum(), x)[0] for f in (y, built(x)))
        same("compiled gradient", got, wanted, 2e-5)


CHECKS = (
    *(
        Check(f.__name__, f)
        for f in (
            reference,
            numbers,
            infinities,
            limits,
            values,
            gradients,
            gradcheck,
            smooth,
            monotone,
            parity,
            scale_invariant,
            identities,
            backward,
        )
    ),
    *(Check(f.__name__, f) for f in (shape, dtype, arguments, learnable, copies, meta, vmap, autocast, saved_bytes)),
    *(Check(f.__name__, f) for f in (training, evaluation)),
    *_support.CHECKS,
    Check("fused", fused, needs_compile=True, one_in=40),
    Check("compiled", compiled, needs_compile=True, one_in=40),
)
