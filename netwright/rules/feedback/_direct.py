"""Direct feedback: the error at a model's output reaches the inputs of its layers, each through a fixed random matrix.

Each layer's input is cut from the graph below it. A token, zeros in the shape of the output, takes its place there: the
tokens are attached to the model's output, get its gradient on the way back, and hand it on through their matrix. So no
gradient travels from layer to layer, and nothing is computed that is not used.

Shape suffixes: B batch, K elements of the output, N elements of a layer's input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput


def given(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A layer's input among the arguments of a call."""
    return args[0] if args else kwargs.get("input")


@final
class DirectFeedback(nn.Module):
    """The fixed random matrix from the output's error to one layer's input, drawn from U(-1, 1) / sqrt(K) * scale.

    kind: "full"; "channels", the same for every position of a map or sequence; "position", from each position of the output
    to the same one of the input.
    """

    matrix: Tensor

    def __init__(self, layer: Any, x: tuple[int, ...], output: tuple[int, ...], maps: str, scale: float) -> None:
        super().__init__()
        self.scale, self.channel_dim = scale, len(x) - 1 if isinstance(layer, nn.Linear) else 1
        if len(output) > 2 and x[:-1] == output[:-1]:
            self.kind, self.row, n = "position", output[-1:], x[-1]
        else:
            self.kind, self.row, n = maps, output[1:], x[self.channel_dim] if maps == "channels" else math.prod(x[1:])
        # On meta until it is known that there is room.
        self.register_buffer("matrix", torch.empty(math.prod(self.row), n, dtype=layer.weight.dtype, device="meta"))
        self.home = layer.weight.device

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator) -> None:
        bound = self.scale / math.sqrt(len(self.matrix))
        drawn = torch.empty(self.matrix.shape).uniform_(-bound, bound, generator=generator)
        self.matrix = drawn.to(self.home, self.matrix.dtype)

    def signal(self, error: Tensor, matrix: Tensor, shape: torch.Size) -> Tensor:
        """The gradient at an input of this shape."""
        if self.kind == "position":
            return error @ matrix
        flat_BN = error.flatten(1) @ matrix
        if self.kind == "full":
            return flat_BN.view(shape)
        wide = [n if dim in (0, self.channel_dim) else 1 for dim, n in enumerate(shape)]
        return flat_BN.view(wide).expand(shape)

    def token(self, x: Tensor) -> Tensor:
        """Zeros in the shape of the output, whose gradient becomes the gradient of x."""
        if self.kind == "full" and x[0].numel() != self.matrix.shape[1]:
            raise BadInput(
                f"an input of {tuple(x.shape)} where direct feedback was made for {self.matrix.shape[1]} elements a row;"
                " convert with an example of this size, or with maps='channels'"
            )
        return _Token.apply(x, self.matrix, self)


class _Token(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, matrix: Tensor, feedback: Any) -> Tensor:
        rows = x.shape[:-1] if feedback.kind == "position" else x.shape[:1]
        return x.new_zeros(()).expand(*rows, *feedback.row)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, matrix, ctx.feedback = inputs
        ctx.save_for_backward(matrix)
        ctx.shape, ctx.dtype = x.shape, x.dtype

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (matrix,) = ctx.saved_tensors
        return ctx.feedback.signal(grads[0].to(matrix.dtype), matrix, ctx.shape).to(ctx.dtype), None, None


class _Broadcast(torch.autograd.Function):
    """The output as it is; its gradient goes to every token, too."""

    generate_vmap_rule = True

    @staticmethod
    def forward(output: Tensor, *tokens: Tensor) -> Tensor:
        return output.view_as(output)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.n = len(inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return grads * ctx.n


@final
class Run:
    """The tokens of the forward that is under way, None outside one."""

    def __init__(self) -> None:
        self.tokens: list[Tensor] | None = None
        self.exact = False


@final
@dataclass
class _Start:
    run: Run

    def __call__(self, model: nn.Module, args: Any) -> None:
        self.run.tokens = [] if torch.is_grad_enabled() and not self.run.exact else None


@final
@dataclass
class _Tap:
    """Cuts the gradient at a layer's input; what lies below gets the output's error instead."""

    run: Run

    def __call__(self, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self.run.tokens is None:
            return None
        x, feedback = given(args, kwargs), layer.feedback
        self.run.tokens.append(feedback.token(x))  # type: ignore[operator,union-attr]
        return ((x.detach(), *args[1:]), kwargs) if args else (args, {**kwargs, "input": x.detach()})


@final
@dataclass
class _Finish:
    run: Run

    def __call__(self, model: nn.Module, args: Any, output: Any) -> Any:
        tokens, self.run.tokens = self.run.tokens, None
        if not tokens or output is None:  # None: the forward has raised
            return None
        if not isinstance(output, Tensor) or any(token.shape != output.shape for token in tokens):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise BadInput(f"an output of {got} where direct feedback was made for one of {tuple(tokens[0].shape)}; convert anew")
        return _Broadcast.apply(output, *tokens)


def runs(model: nn.Module) -> list[Run]:
    """Of each model inside this one that has direct feedback."""
    return [hook.run for m in model.modules() for hook in m._forward_pre_hooks.values() if isinstance(hook, _Start)]


def install(model: nn.Module, feedback: dict[str, DirectFeedback]) -> nn.Module:
    """Give the layers at these paths their feedback, in place."""
    run = Run()
    for path, made in feedback.items():
        layer = model.get_submodule(path)
        layer.feedback = made
        layer.register_forward_pre_hook(_Tap(run), with_kwargs=True)
    model.register_forward_pre_hook(_Start(run))
    model.register_forward_hook(_Finish(run), always_call=True)
    return model
