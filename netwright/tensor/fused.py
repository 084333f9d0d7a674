"""Fused activations: forward and backward compiled from the plain writing, keeping nothing but the inputs.

The backward is the vector-Jacobian product of the same formula, computed anew from the saved input inside one kernel:
4 bytes an element are kept in float32, where plain autograd keeps about one tensor an operation. No gradient is derived
by hand, and the backward can itself be differentiated once.
"""

from __future__ import annotations

import math
import threading
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

Function = Callable[..., Any]


class FallbackWarning(UserWarning):
    """No compiler could be used: fused functions run their plain writing and still keep nothing but the inputs."""


class _Compiler:
    """Whether functions are compiled in this process; given up once, with one warning, when compiling fails."""

    def __init__(self) -> None:
        self.usable = True
        self._lock = threading.Lock()

    def give_up(self, label: str, error: Exception) -> None:
        with self._lock:
            if self.usable:
                self.usable = False
                lines = [line.strip() for line in str(error).split("\n") if line.strip()]
                named = [line for line in lines[1:] if "error" in line.lower()]
                cause = " | ".join(line[:200] for line in (lines[:1] + named[:1]))
                warnings.warn(
                    f"{label}: fused=True runs uncompiled from here on ({type(error).__name__}: {cause})",
                    FallbackWarning,
                    stacklevel=4,
                )


compiler = _Compiler()


@contextmanager
def uncompiled() -> Iterator[None]:
    """Within it fused functions run their plain writing, silently: for debugging, for checks without a compiler."""
    was, compiler.usable = compiler.usable, False
    try:
        yield
    finally:
        compiler.usable = was


def _quotient(a: Any, b: Any) -> Any:
    """a / b as a times the reciprocal of b: processors divide many times slower, and derivatives of quotients divide again."""
    if not (isinstance(a, Tensor) and a.dtype in (torch.float32, torch.float64)):
        return NotImplemented
    if isinstance(b, Tensor):
        return a * b.reciprocal() if b.dtype == a.dtype else NotImplemented
    return a * (1.0 / b) if isinstance(b, (int, float)) and b else NotImplemented


def _inductor(graph: Any, inputs: Any) -> Any:
    """torch's compiler with two liberties: quotients by reciprocals, and a product and a sum in one instruction.

    isinf becomes a comparison, which it can vectorise.
    """
    from torch._inductor.compile_fx import compile_fx
    from torch._inductor.decomposition import select_decomp_table

    aten = torch.ops.aten
    rules: dict[Any, Any] = {
        **select_decomp_table(),
        aten.div.Tensor: _quotient,
        aten.isinf.default: lambda x: x.abs() == math.inf,
    }
    return compile_fx(graph, inputs, config_patches=_CONTRACT, decompositions=rules)


_CONTRACT = {"cpp.enable_floating_point_contract_flag": "fast"}


class _Lazy:
    """A function compiled at its first call; the plain function where that can't be done."""

    def __init__(self, plain: Function, label: str) -> None:
        self.plain, self.label = plain, label
        self._compiled: Function | None = None

    def __call__(self, *args: Tensor) -> Any:
        device = args[0].device.type
        if device == "meta" or not compiler.usable:
            return self.plain(*args)
        # The dtype of the arguments decides, forward and backward alike; autocast would change one without the other.
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self._run(*args)
        return self._run(*args)

    def _run(self, *args: Tensor) -> Any:
        try:
            if self._compiled is None:
                self._compiled = torch.compile(self.plain, dynamic=True, backend=_inductor)
            return self._compiled(*args)
        except Exception as error:  # the plain call tells a bad argument from a bad compiler
            result = self.plain(*args)
            compiler.give_up(self.label, error)
            return result


def own_code(function: Function) -> Function:
    """A copy of a function with a code object of its own: the compiler counts recompilations by code object.

    Without it the ninth function made by one `def` would silently run uncompiled.
    """
    source: Any = function
    code, closure = source.__code__.replace(), source.__closure__
    made = types.FunctionType(code, source.__globals__, source.__name__, source.__defaults__, closure)
    made.__kwdefaults__, made.__doc__ = source.__kwdefaults__, source.__doc__
    made.__annotations__ = source.__annotations__
    return made


def fuse(fn: Function, label: str) -> Function:
    """fn(x, *tensors, **options) compiled, with a backward that keeps its tensor arguments only.

    Shapes and dtypes: those of fn. Options are constants: each set of values gets its own kernels, at its first call, and
    so does each set of shapes of parameters, which the compiler takes as fixed; other tensors may have any shape.
    Works under vmap, grad of grad, an outer torch.compile, torch.export, on meta tensors and in low precision.
    Without a compiler it warns once (FallbackWarning, with the cause) and runs fn as it is written.
    """

    @cache
    def closed(options: tuple[tuple[str, Any], ...], shapes: tuple[torch.Size | None, ...]) -> Function:
        constants = dict(options)

        def plain(*inputs: Tensor) -> Tensor:
            return fn(*inputs, **constants)

        return _function(own_code(plain), label)  # one for all shapes would soon be recompiled more often than is allowed

    def fused(x: Tensor, *tensors: Tensor, **options: Any) -> Tensor:
        if torch.compiler.is_compiling():  # an outer compiler fuses the plain writing itself
            return fn(x, *tensors, **options)
        shapes = tuple(t.shape if isinstance(t, torch.nn.Parameter) else None for t in tensors)
        return closed(tuple(sorted(options.items())), shapes)(x, *tensors)

    return fused


def fuse_kept(fn: Function, forward: Function, backward: Function, label: str) -> Function:
    """fn(x, **options) by a forward and a backward written by hand, where they keep less than x or save the backward work.

    forward(x, **options) -> (y, *kept) and backward(gradient, *kept, **options) -> gradient of x are compiled, and nothing
    but `kept` stays for the backward. Inside an outer torch.compile fn takes their place. Where the gradient follows from y,
    forward returns y alone, and backward(gradient, y, **options) is differentiated through y too in a double backward.
    """

    @cache
    def closed(options: tuple[tuple[str, Any], ...]) -> Function:
        constants = dict(options)

        def ahead(x: Tensor) -> Tensor | tuple[Tensor, ...]:
            return forward(x, **constants)

        def back(gradient: Tensor, *kept: Tensor) -> Tensor:
            return backward(gradient, *kept, **constants)

        forward_kernel, backward_kernel = _Lazy(own_code(ahead), label), _Lazy(own_code(back), label)

        class Kept(torch.autograd.Function):
            generate_vmap_rule = True

            @staticmethod
            def forward(x: Tensor) -> Tensor | tuple[Tensor, ...]:
                return forward_kernel(x)

            @staticmethod
            def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
                if isinstance(output, Tensor):
                    ctx.save_for_backward(output)
                else:
                    ctx.mark_non_differentiable(*output[1:])
                    ctx.save_for_backward(*output[1:])

            @staticmethod
            def backward(ctx: Any, gradient: Tensor, *_: Any) -> Tensor:
                return backward_kernel(gradient, *ctx.saved_tensors)

        return Kept.apply

    def fused(x: Tensor, **options: Any) -> Tensor:
        if torch.compiler.is_compiling():
            return fn(x, **options)
        y = closed(tuple(sorted(options.items())))(x)
        return y if isinstance(y, Tensor) else y[0]

    return fused


def _function(plain: Function, label: str) -> Function:
    forward_kernel = _Lazy(plain, label)

    def pull(gradient: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
        return torch.func.vjp(plain, *inputs)[1](gradient)

    backward_kernel = _Lazy(own_code(pull), label)

    class Fused(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(*inputs: Tensor) -> Tensor:
            return forward_kernel(*inputs)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
            return backward_kernel(*gradients, *ctx.saved_tensors)

    return Fused.apply
