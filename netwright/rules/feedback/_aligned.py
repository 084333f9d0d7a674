"""Layers that carry the error back through other weights than they carried the input forward.

    y = W x + b        dL/dx = B^T dL/dy        dL/dW and dL/db as ever

Of B there are four kinds: `random`, fixed and unrelated to W; `uniform`, s sign(W); `fixed`, M sign(W) with M > 0 random
and fixed; `redrawn`, M sign(W) with a new M for every forward. B = W would be backpropagation.

Shape suffixes: B batch, I inputs, O outputs.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from netwright.core.errors import Misfit, unknown

KINDS = ("random", "uniform", "fixed", "redrawn")
_CONVOLVE: Any = (F.conv1d, F.conv2d, F.conv3d)


class _Linear(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight_OI: Tensor, bias: Tensor | None, feedback_OI: Tensor) -> Tensor:
        return F.linear(x, weight_OI, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, bias, feedback = inputs
        ctx.save_for_backward(x, feedback)
        ctx.dtype = weight.dtype

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,), (x, feedback_OI), needs = grads, ctx.saved_tensors, ctx.needs_input_grad
        rows_BO = g.reshape(-1, g.shape[-1])  # in mixed precision g is narrower than x and the weights
        g_x = (g @ feedback_OI.to(g.dtype)).to(x.dtype) if needs[0] else None
        g_weight = (rows_BO.T @ x.reshape(-1, x.shape[-1]).to(g.dtype)).to(ctx.dtype) if needs[1] else None
        g_bias = rows_BO.sum(0).to(ctx.dtype) if needs[2] else None
        return g_x, g_weight, g_bias, None


class _Conv(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, feedback: Tensor, geometry: tuple[Any, ...]) -> Tensor:
        stride, padding, dilation, groups = geometry
        return _CONVOLVE[len(stride) - 1](x, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, bias, feedback, ctx.geometry = inputs
        ctx.save_for_backward(x, feedback)
        ctx.dtype, ctx.biases = weight.dtype, None if bias is None else [weight.shape[0]]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,), (x, feedback), (stride, padding, dilation, groups) = grads, ctx.saved_tensors, ctx.geometry
        # The kernel serves the gradient of x alone; the weight's gradient depends on x and g.
        g_x, g_weight, g_bias = torch.ops.aten.convolution_backward(
            g,
            x.to(g.dtype),
            feedback.to(g.dtype),
            ctx.biases,
            stride,
            padding,
            dilation,
            False,
            [0] * len(stride),
            groups,
            list(ctx.needs_input_grad[:3]),
        )
        wide = (x.dtype, ctx.dtype, ctx.dtype)
        cast = [None if t is None else t.to(dtype) for t, dtype in zip((g_x, g_weight, g_bias), wide, strict=True)]
        return (*cast, None, None)


def _by_values(product: Callable[[Tensor, Tensor, Tensor | None], Tensor], x: Tensor, layer: Aligned, carried: Tensor) -> Tensor:
    """The same in torch's own operations, with one product more: the compiler can't batch a function of ours."""
    z = product(x, carried, None)
    return product(x.detach(), layer.weight, layer.bias) + (z - z.detach())


@final
class FeedbackWeights(nn.Module):
    """What B of one layer is made from.

    kind: of KINDS. The root mean square of B is scale * rms, by default that of torch's own initial weights of such a layer.
    matrix: B itself ("random"), M ("fixed"), or one number: s ("uniform"), the largest M
    ("redrawn").
    """

    matrix: Tensor

    def __init__(self, weight: Tensor, kind: str, scale: float = 1.0, rms: float = 0.0) -> None:
        super().__init__()
        if kind not in KINDS:
            raise unknown("kind of feedback", kind, KINDS)
        self.kind, self.rms = kind, scale * (rms or 1 / math.sqrt(3 * max(weight[0].numel(), 1)))
        full = kind in ("random", "fixed")
        self.register_buffer("matrix", weight.detach().new_empty(weight.shape if full else ()))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        bound = math.sqrt(3) * self.rms  # of a uniform distribution
        if self.kind in ("random", "fixed"):
            drawn = torch.empty(self.matrix.shape).uniform_(-bound if self.kind == "random" else 0.0, bound, generator=generator)
            self.matrix.copy_(drawn)
        else:
            self.matrix.fill_(self.rms if self.kind == "uniform" else bound)

    def forward(self, weight: Tensor, draw: Tensor | None = None) -> Tensor:
        """B, detached. draw: of "redrawn", M over its largest value, in the weight's shape; by default all of it is 1/2."""
        if self.kind == "random":
            return self.matrix
        b = self.matrix * weight.detach().sign()
        if self.kind != "redrawn":
            return b
        return b * (0.5 if draw is None else draw)


class Aligned(nn.Module):
    """What the layers below have beside torch's. Abstract.

    feedback: the layer's own, if any; "redrawn" magnitudes are then drawn by torch's default generator, in training.
    handed: B from outside, for the next forwards. exact, and where there is neither: the layer is torch's.
    """

    weight: Any
    bias: Any

    def _equip(self, feedback: FeedbackWeights | None) -> None:
        self.feedback, self.exact = feedback, False
        self.handed: Tensor | None = None

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Weight and bias from torch's own distribution for such a layer."""
        fan_in = self.weight[0].numel()
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
        for t in (self.weight, self.bias):
            if t is not None:
                t.uniform_(-bound, bound, generator=generator)

    def carried(self) -> Tensor | None:
        """B, or None where it is W."""
        if not torch.is_grad_enabled():
            return None
        own, draw = self.feedback, None
        if own is not None and own.kind == "redrawn" and self.training:
            draw = torch.rand_like(self.weight)  # also where it is not used: what is drawn after it stays the same
        if self.exact or self.handed is not None or own is None:
            return None if self.exact else self.handed
        return own(self.weight, draw)


@final
class AlignedLinear(Aligned, nn.Linear):
    """nn.Linear with its own way back. x (..., I) -> (..., O)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        feedback: FeedbackWeights | None = None,
    ) -> None:
        nn.Linear.__init__(self, in_features, out_features, bias, device, dtype)
        self._equip(feedback)

    def forward(self, x: Tensor) -> Tensor:
        carried = self.carried()
        if carried is None:
            return F.linear(x, self.weight, self.bias)
        if torch.compiler.is_compiling():
            return _by_values(F.linear, x, self, carried)
        return _Linear.apply(x, self.weight, self.bias, carried)


class _AlignedConv(Aligned):
    stride: tuple[int, ...]
    padding: Any
    dilation: tuple[int, ...]
    kernel_size: tuple[int, ...]
    groups: int
    padding_mode: Any

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
        feedback: FeedbackWeights | None = None,
    ) -> None:
        super().__init__(  # the convolution's
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode, device, dtype
        )
        self._equip(feedback)

    def forward(self, x: Tensor) -> Tensor:
        carried = self.carried()
        if carried is None:
            return super().forward(x)
        n = len(self.kernel_size)
        if isinstance(self.padding, str):
            both = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            sides = [(0, 0) if self.padding == "valid" else (total // 2, total - total // 2) for total in both]
        else:
            sides = [(p, p) for p in self.padding]
        if self.padding_mode != "zeros" or any(left != right for left, right in sides):
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = F.pad(x, [p for side in reversed(sides) for p in side], mode)
            sides = [(0, 0)] * n
        geometry = (self.stride, tuple(left for left, _ in sides), self.dilation, self.groups)
        if torch.compiler.is_compiling():
            return _by_values(lambda x, weight, bias: _CONVOLVE[n - 1](x, weight, bias, *geometry), x, self, carried)
        if x.dim() == n + 1:  # without a batch
            return _Conv.apply(x[None], self.weight, self.bias, carried, geometry)[0]
        return _Conv.apply(x, self.weight, self.bias, carried, geometry)


@final
class AlignedConv1d(_AlignedConv, nn.Conv1d):
    """nn.Conv1d with its own way back."""


@final
class AlignedConv2d(_AlignedConv, nn.Conv2d):
    """nn.Conv2d with its own way back."""


@final
class AlignedConv3d(_AlignedConv, nn.Conv3d):
    """nn.Conv3d with its own way back."""


# Into a net that exists -----------------------------------------------------------------------------------------------

#: torch's layer -> the one that takes its place, and the attributes that say how it was built.
_GEOMETRY = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
_TWINS: dict[type[nn.Module], tuple[type[Aligned], tuple[str, ...]]] = {
    nn.Linear: (AlignedLinear, ("in_features", "out_features")),
    nn.Conv1d: (AlignedConv1d, _GEOMETRY),
    nn.Conv2d: (AlignedConv2d, _GEOMETRY),
    nn.Conv3d: (AlignedConv3d, _GEOMETRY),
}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def aligned_layers(model: nn.Module) -> dict[str, Aligned]:
    """The aligned layers by path, in order, shared ones once."""
    return {path: module for path, module in model.named_modules() if isinstance(module, Aligned)}


def weighty(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that multiply by a matrix or a kernel of their own, by path; embeddings have no input gradient."""
    for path, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if is_lazy(p) or p.dim() > 1]
        quantised = "quantized" in type(module).__module__ and hasattr(module, "weight")
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag, ParametrizationList)):
            continue
        if own or quantised or is_parametrized(module):
            yield path, module


def owners(model: nn.Module) -> Mapping[int, set[int]]:
    """id of each parameter -> ids of the modules that hold it."""
    found: dict[int, set[int]] = defaultdict(set)
    for module in model.modules():
        for p in module.parameters(recurse=False):
            found[id(p)].add(id(module))
    return found


def obstacle(module: nn.Module, held: Mapping[int, set[int]]) -> str:
    """Why a module can't be replaced by an aligned layer, or ''. held: `owners` of the whole net."""
    kind = type(module).__name__
    if "quantized" in type(module).__module__:
        return f"{kind} is quantised and has no gradient"
    if is_parametrized(module):
        return "parametrised: its weight is computed from others"
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        return "a transposed convolution"
    if any(is_lazy(p) for p in module.parameters(recurse=False)):
        return "not initialised yet: run the net once first"
    if type(module) not in _TWINS:
        base = next((b.__name__ for b in _TWINS if isinstance(module, b)), "")
        return f"a subclass of {base}, whose forward may be another" if base else f"{kind} multiplies in its own forward"
    if any(len(held[id(p)]) > 1 for p in module.parameters(recurse=False)):
        return "tied: another module holds its weight, too"
    if hooked := [name.strip("_") for name in _HOOKS if getattr(module, name, None)]:
        return f"has {', '.join(hooked)}, which would be lost"
    if "forward" in vars(module):
        return "has a forward of its own set on the instance"
    return ""


def aligned(layer: nn.Module, feedback: FeedbackWeights | None = None) -> Aligned:
    """The aligned layer that takes over a layer's weight and bias."""
    twin, names = _TWINS[type(layer)]
    given: dict[str, Any] = {name: getattr(layer, name) for name in names}
    weight: Any = layer.weight
    new: Any = twin(**given, bias=layer.bias is not None, device="meta", dtype=weight.dtype, feedback=feedback)
    new.weight, new.bias = weight, layer.bias
    return new.train(layer.training)


def put(model: nn.Module, new: Mapping[int, nn.Module]) -> nn.Module:
    """The model with the modules of these ids replaced wherever they stand; another module only where it is one itself."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and id(child) in new:
                parent._modules[name] = new[id(child)]
    return new.get(id(model), model)


def align(model: nn.Module) -> nn.Module:
    """The model with an aligned layer, still without feedback, for every linear and convolutional layer that allows it.

    Aligned layers that it has already stay. Raises Misfit where there is none.
    """
    held = owners(model)
    why = {path: obstacle(module, held) for path, module in weighty(model)}
    new = {id(layer): aligned(layer) for path, layer in weighty(model) if not why[path]}
    if not new and not aligned_layers(model):
        said = "; ".join(f"{path or 'the net'}: {reason}" for path, reason in why.items())
        raise Misfit(f"{type(model).__name__} has no nn.Linear or convolution to carry the error back ({said or 'no weights'})")
    return put(model, new)
