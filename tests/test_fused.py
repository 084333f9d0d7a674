"""Fused functions: equal to the plain writing wherever they can be called, and usable without a compiler."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.tensor import fused
from netwright.tensor.fused import FallbackWarning, fuse, fuse_kept, uncompiled


def gated(x: Tensor, steepness: Tensor, *, gain: float = 1.0) -> Tensor:
    return gain * x * torch.sigmoid(steepness * x)


@pytest.fixture(params=["compiled", "uncompiled"])
def either(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.param == "uncompiled":
        with uncompiled():
            yield
        return
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(3))
    except Exception:
        pytest.skip("no compiler works here")
    yield
    assert fused.compiler.usable, "the compiler gave up on the toy"


#: One function for the module, so that its kernels are compiled once.
FUSED = fuse(gated, "toy")


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(6, 5, generator=g, dtype=torch.float64).to(dtype).requires_grad_()
    return x, torch.tensor(1.3, dtype=dtype, requires_grad=True)


def test_values_and_gradients_of_two_orders(either: None) -> None:
    x, s = inputs()
    assert torch.allclose(FUSED(x, s), gated(x, s))
    assert torch.autograd.gradcheck(FUSED, (x, s))
    assert torch.autograd.gradgradcheck(FUSED, (x, s))


def test_options_are_constants_of_their_own_kernels(either: None) -> None:
    x, s = inputs()
    for gain in (2.0, 3.0, 2.0):
        assert torch.allclose(FUSED(x, s, gain=gain), gated(x, s, gain=gain))


def test_vmap_of_grad_over_copies_of_the_parameter(either: None) -> None:
    x, _ = inputs()
    s = torch.linspace(0.5, 2.0, 6, dtype=torch.float64)

    def slopes(f):
        return torch.func.vmap(torch.func.grad(lambda row, s: f(row, s).square().sum(), argnums=(0, 1)))(x.detach(), s)

    for ours, theirs in zip(slopes(FUSED), slopes(gated), strict=True):
        assert torch.allclose(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_keeps_its_dtype(dtype: torch.dtype) -> None:
    with uncompiled():
        x, s = inputs(dtype)
        y = FUSED(x, s)
        (gradient,) = torch.autograd.grad(y.sum(), x)
    assert y.dtype == gradient.dtype == dtype
    assert torch.equal(y, gated(x, s))


def test_only_the_inputs_are_kept_for_the_backward(either: None) -> None:
    x, s = inputs(torch.float32)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        FUSED(x, s)
    assert {t.data_ptr() for t in kept} == {x.data_ptr(), s.data_ptr()}


def test_meta_tensors_need_no_kernel() -> None:
    x, s = inputs()
    assert FUSED(x.to("meta"), s.to("meta")).shape == x.shape


def test_autocast_changes_nothing(either: None) -> None:
    x, s = inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = FUSED(x, s)
        (gradient,) = torch.autograd.grad(y.sum(), x)
    assert y.dtype == gradient.dtype == torch.float32
    assert torch.allclose(y, gated(x, s))


class Layer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return FUSED(x, x.new_tensor(1.3), gain=2.0)


def test_export_sees_the_plain_writing() -> None:
    program = torch.export.export(Layer(), (torch.randn(3, 2),))
    x = torch.linspace(-2, 2, 6).reshape(3, 2)
    assert torch.allclose(program.module()(x), gated(x, torch.tensor(1.3), gain=2.0))
    assert torch.sigmoid.__name__ in str(program.graph)


def clipped(x: Tensor, *, top: float) -> Tensor:
    return x.clamp(0.0, top)


def ahead(x: Tensor, *, top: float) -> tuple[Tensor, Tensor]:
    return x.clamp(0.0, top), ((x > 0) & (x < top)).to(torch.uint8)


def back(gradient: Tensor, inside: Tensor, *, top: float) -> Tensor:
    return gradient * inside


def squeezed(x: Tensor) -> Tensor:
    return torch.tanh(x)


#: Keeps a byte an element; and one whose gradient follows from its output, which is kept.
CLIPPED = fuse_kept(clipped, ahead, back, "toy")
SQUEEZED = fuse_kept(squeezed, squeezed, lambda gradient, y: gradient * (1 - y * y), "toy")


def test_a_forward_and_a_backward_by_hand(either: None) -> None:
    x, _ = inputs()
    assert torch.equal(CLIPPED(x, top=1.0), clipped(x, top=1.0))
    for f, plain in ((lambda x: CLIPPED(x, top=1.0), lambda x: clipped(x, top=1.0)), (SQUEEZED, squeezed)):
        assert torch.autograd.gradcheck(f, (x,))
        slopes = [torch.func.vmap(torch.func.grad(lambda row, g=g: g(row).sum()))(x.detach()) for g in (f, plain)]
        assert torch.allclose(*slopes)
    assert torch.autograd.gradgradcheck(SQUEEZED, (x,))


def test_by_hand_nothing_but_what_is_said_is_kept() -> None:
    kept: list[int] = []

    def pack(t: Tensor) -> Tensor:
        kept.append(t.untyped_storage().nbytes())
        return t

    x, _ = inputs(torch.float32)
    with uncompiled(), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        CLIPPED(x, top=1.0)
    assert kept == [x.numel()]


@pytest.mark.parametrize("b", [torch.tensor([4.0, 0.0, -3.0, math.inf]), 4, 0.3])
def test_a_quotient_by_reciprocal_is_the_quotient(b: Tensor | float) -> None:
    a = torch.tensor([6.0, 0.0, 1.0, 5.0])
    torch.testing.assert_close(fused._quotient(a, b), a / b, rtol=3e-7, atol=0.0, equal_nan=True)
    assert fused._quotient(a.long(), b) is NotImplemented and fused._quotient(a.half(), b) is NotImplemented


def test_a_failing_compiler_warns_once_with_the_cause_and_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(f, **_):
        def call(*args: Tensor) -> Tensor:
            asked.append(f)
            raise RuntimeError("toolchain\ng++: error: not installed")

        return call

    monkeypatch.setattr(torch, "compile", refuse)
    monkeypatch.setattr(fused, "compiler", fused._Compiler())
    f, (x, s) = fuse(gated, "toy"), inputs()
    with pytest.warns(FallbackWarning, match=r"toy: .*RuntimeError: toolchain \| g\+\+: error: not installed"):
        y = f(x, s)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.autograd.gradcheck(f, (x, s))
        fuse(torch.tanh, "another")(x)
    assert torch.equal(y, gated(x, s)) and len(asked) == 1


def test_an_error_of_the_function_itself_is_raised_and_blames_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda f, **_: f)
    monkeypatch.setattr(fused, "compiler", fused._Compiler())
    with pytest.raises(RuntimeError, match="must match"):
        fuse(gated, "toy")(torch.zeros(3), torch.zeros(2))
    assert fused.compiler.usable


def test_uncompiled_ends_with_its_block() -> None:
    was = fused.compiler.usable
    with pytest.raises(ZeroDivisionError), uncompiled():
        assert not fused.compiler.usable
        math.floor(1 / 0)
    assert fused.compiler.usable == was


@pytest.mark.every_part
def test_every_function_has_a_code_object_of_its_own_since_recompilations_are_counted_by_it() -> None:
    copy = fused.own_code(gated)
    x, s = inputs()
    assert copy.__code__ is not gated.__code__
    assert torch.equal(copy(x, s, gain=2.0), gated(x, s, gain=2.0))
    forwards = [part.module_type().forward for part in catalogue.parts("activation")]
    assert len({id(f.__code__) for f in forwards}) == len(forwards)


def test_parameters_of_many_shapes_are_compiled_and_none_is_left_to_run_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "_inductor", lambda graph, _: graph.forward)
    monkeypatch.setattr(fused, "compiler", fused._Compiler())
    of_many = fuse(gated, "of many shapes")
    with torch._dynamo.config.patch(recompile_limit=2, fail_on_recompile_limit_hit=True):
        for width in range(2, 8):
            steepness = nn.Parameter(torch.ones(width))
            of_many(torch.ones(3, width, requires_grad=True), steepness).sum().backward()
            assert steepness.grad is not None and bool((steepness.grad > 0).all())
    assert fused.compiler.usable
