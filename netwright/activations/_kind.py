"""The kind `activation`: a pure function of a tensor, and what a user may rely on about it.

Shape classes
    elementwise  y[i] depends on x[i] only
    rowwise      acts along the channel dim; the reference takes and returns a list
    gated        two equal halves of the channel dim in, one out; fills the slot `mlp`, never `activation`
    channels     y has ratio times the channels of x; the reference takes and returns a list
    stateful     behaves differently in training and evaluation: running statistics, random draws; two references
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.kind import NET, Kind
from netwright.core.part import Example, Learn, Option, Part, State, with_options
from netwright.tensor.fused import fuse, fuse_kept, own_code

#: Raised by hand when numbers of this file move; tests/golden fails when they move and this did not.
KIND_VERSION = 1

SHAPES = ("elementwise", "rowwise", "gated", "channels", "stateful")
ALWAYS = ("smooth", "monotone", "odd", "even", "scale_invariant")
LOW = (torch.float16, torch.bfloat16)


@final
@dataclass(frozen=True)
class Tags:
    """What holds at the default setting; names listed in `always` hold for all parameter values. Every tag is checked.

    Of elementwise parts smooth, monotone, odd, even and kinks are checked both ways: what holds has to be declared.
    """

    shape: str = "elementwise"
    smooth: bool = False  # the first derivative is continuous everywhere
    monotone: bool = False  # never decreasing
    odd: bool = False
    even: bool = False
    kinks: tuple[float, ...] = ()  # where the derivative jumps at the default setting; empty exactly where smooth
    delicate: bool = False  # half-precision inputs are computed in float32
    exact_gradient: bool = True  # the backward is the derivative of the forward
    scale_invariant: bool = False  # f(c x) = f(x) for c > 0
    always: tuple[str, ...] = ()
    no_dtypes: tuple[str, ...] = ()  # e.g. ("float16",): a dtype the kernel lacks
    reasons: Mapping[str, str] | None = None  # why a check can't hold: {check name: reason}

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise BadInput(f"Tags shape={self.shape!r}; allowed: {', '.join(SHAPES)}")
        if wrong := [name for name in self.always if name not in ALWAYS or not getattr(self, name)]:
            raise BadInput(f"Tags always={wrong}; allowed: those of {', '.join(ALWAYS)} that hold at the default setting")
        if self.smooth and self.kinks:
            raise BadInput(f"Tags smooth=True with kinks={self.kinks}; a function with kinks isn't smooth")


@final
@dataclass(frozen=True, kw_only=True)
class ActivationPart(Part):
    """An activation, declared by `activation(fn, ...)`; `part(x)` is not a thing: use `part.fn` or `part.build()`.

    fn(x, *learned, **options) -> Tensor: the pure function; parts that are not elementwise also take dim=.
    cls: the name of its class, which is generated unless module_class= is given.
    reference(x, *learned, **options): the second writing, in Python floats (lists for rowwise, gated, channels).
    compiled: another writing of fn for fused=True, where the compiler makes more of it; checked to be equal.
    fused: the pair forward(x, dim=, **options) -> (y, *kept), backward(gradient, *kept, dim=, **options) -> gradient of x,
        for fused=True where it wins by measure (both are compiled); kept: bytes an input element it keeps, in float32.
    native: fn is one kernel of torch's that keeps nothing but x, so that compiling it could only lose.
    backward(x, *learned, **options): with Tags(exact_gradient=False), the derivative the backward declares to be.
    shared: one module (one set of parameters) serves every place of a net.

    A stateful part also declares state=, draw= and evaluate=:
        training    fn(x, *learned, *state, *draws, dim=, **options) -> y, with state (y, *new state)
        evaluation  evaluate(x, *learned, *state, dim=, **options) -> y; without it, what training computes
        draws       draw(x, generator, dim=, **options) -> tensors; generator None is torch's default one
    with references of a batch (a list of rows, one value a channel as a list): reference(rows, *learned, *state, *draws,
    **options) -> rows, or (rows, *new state); reference_eval(rows, *learned, *state, **options) -> rows.
    """

    tags: Tags = field(default_factory=Tags)
    cls: str
    reference: Callable[..., Any]
    reference_eval: Callable[..., Any] | None = None
    compiled: Callable[..., Tensor] | None = None  # the writing the compiler gets, where another is faster there
    backward: Callable[..., float] | None = None  # the declared derivative, where it is not that of fn
    learn: tuple[Learn, ...] = ()
    state: tuple[State, ...] = ()  # running statistics of a stateful part
    draw: Callable[..., tuple[Tensor, ...]] | None = None  # all that a stateful part draws at random in training
    evaluate: Callable[..., Tensor] | None = None  # what a stateful part computes in evaluation
    shared: bool = False  # one module serves every place of a net
    values: Mapping[float, float] | None = None
    examples: tuple[Example, ...] = ()
    limits: tuple[float, float] | None = None  # of f at -inf and +inf; math.nan where there is none
    ratio: float = 0.0  # channels out / channels in; 0 stands for that of the shape: 1/2 of gated, else 1
    flops: float = 1.0  # elementwise operations an output element, exponentials counted as one each
    module_class: type[nn.Module] | None = None  # written by hand where a generated one can't serve
    fused: tuple[Callable[..., Any], Callable[..., Tensor]] | None = None  # ahead and back by hand, where that wins by measure
    native: bool = False  # fn is a kernel of torch's that keeps x alone: fused=True calls it as it is
    kept: float = 4.0  # bytes an input element that fused=True keeps for the backward, in float32

    #: What fused=True calls: `fused`, or fn, compiled at its first call, forward and backward, keeping only its tensor arguments.
    fused_fn: Callable[..., Any] = field(init=False, repr=False, compare=False)
    #: The options fn itself takes; the others only choose initial values.
    fn_options: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learn:
            scalars = (Option(item.name, item.init) for item in self.learn if isinstance(item.init, (int, float)))
            per = Option("per", self.learn[0].per, "one parameter a 'tensor' or a 'channel'", allowed=("tensor", "channel"))
            learnable = Option("learnable", True, "whether the parameters are trained")
            self._derive(options=with_options(self.options, *scalars, per, learnable))
        taken = inspect.signature(self.fn).parameters if self.options else {}  # a built-in has no signature to read
        self._derive(
            ratio=self.ratio or (0.5 if self.tags.shape == "gated" else 1.0),
            fused_fn=self._fuse(),
            fn_options=frozenset(o.name for o in self.options if o.name in taken),
        )

    @property
    def fn(self) -> Callable[..., Any]:
        """The function that is declared: a tensor; of a stateful part also its new statistics."""
        return self.subject

    @property
    def written(self) -> Any:
        return self.reference  # fn may be torch's own

    def _fuse(self) -> Callable[..., Any]:
        if self.fused is not None:
            return fuse_kept(self.fn, *self.fused, self.id)
        # What returns new statistics besides its output is left as it is written.
        return self.fn if self.state or self.native else fuse(self.compiled or self.fn, self.id)

    @property
    def kind(self) -> str:
        return "activation"

    @property
    def why_not_stackable(self) -> str:
        if self.tags.shape == "stateful":
            return f"{self.id} keeps statistics or draws random numbers inside the forward"
        return f"{self.id} is one module for all places" if self.shared else ""

    def slots(self) -> tuple[str, ...]:
        return ("mlp",) if self.tags.shape == "gated" else ("activation",)

    @property
    def replaces(self) -> tuple[str, ...]:
        return ("activation",) if self.tags.shape == "gated" else ()

    def factory(self, options: Mapping[str, Any]) -> Callable[..., nn.Module]:
        """What fills a slot of a host: (channels, channel_dim) -> module; of a shared part every time the same one."""
        one: list[nn.Module] = []

        def make(channels: int, channel_dim: int) -> nn.Module:
            if not (one and self.shared):
                one[:] = [self.build(channels=channels, channel_dim=channel_dim, **options)]
            return one[0]

        return make

    def operations(self, built: Any, x: Tensor, y: Tensor) -> float:
        """Elementwise operations of one forward."""
        return y.numel() * self.flops

    def build(self, **options: Any) -> nn.Module:
        """The module. Takes channels=, channel_dim=, fused=, its options; where it learns, per= and learnable=."""
        return self.module_type()(**options)

    def module_type(self) -> type[nn.Module]:
        return self._type

    @cached_property
    def _type(self) -> type[nn.Module]:
        return self.module_class or _generate(self)  # once, so that pickle finds the same object it saved

    @property
    def class_name(self) -> str:
        return self.cls  # without generating it


class Activation(nn.Module):
    """Base of every generated activation module: holds the learnable parameters, calls the pure function.

    Input: any shape with floating dtype. Output: the same shape (times `ratio` along channel_dim), the same dtype.
    """

    part: ActivationPart
    no_decay: frozenset[str]
    generator: torch.Generator | None = None  # of the draws of a stateful part; None: torch's default, as in nn.Dropout

    def _setup(self, channels: int | None, channel_dim: int, fused: bool, given: Mapping[str, Any]) -> None:
        part = self.part
        if channels is not None and (isinstance(channels, bool) or not isinstance(channels, int) or channels < 1):
            raise BadInput(f"{part.id}: channels={channels!r}; expected a whole number of at least 1")
        if isinstance(channel_dim, bool) or not isinstance(channel_dim, int):
            raise BadInput(f"{part.id}: channel_dim={channel_dim!r}; expected a whole number")
        if not isinstance(fused, bool):
            raise BadInput(f"{part.id}: fused={fused!r}; expected True or False")
        self.channels, self.channel_dim, self.fused = channels, channel_dim, fused
        self.ratio = part.ratio
        self.options = part.resolve(given)
        self.per = self.options.pop("per", None)
        learnable = self.options.pop("learnable", True)
        if channels is None and (self.per == "channel" or any(item.per == "channel" for item in part.state)):
            why = "per='channel'" if self.per == "channel" else "one statistic a channel"
            raise BadInput(f"{part.id}: {why} needs channels=, the size of dimension {channel_dim}")
        for item in part.state:
            self.register_buffer(item.name, torch.empty(channels if item.per == "channel" and channels else 1))
        self._inits = {item.name: self._initial(item) for item in part.learn}
        for name, init in self._inits.items():
            shape: tuple[int, ...] = (len(init),) if isinstance(init, tuple) else ()
            shape += (channels,) if self.per == "channel" and channels is not None else () if shape else (1,)
            self.register_parameter(name, nn.Parameter(torch.empty(shape), requires_grad=learnable))
        self.no_decay = frozenset(item.name for item in part.learn if not item.decay)
        self.reset_parameters()

    def _initial(self, item: Learn) -> float | tuple[float, ...]:
        """The value a learnable parameter starts at: given when built, declared, or computed from the options."""
        init = self.options.pop(item.name, None)
        if init is None:
            init = item.init(self.options) if callable(item.init) else item.init
        lo, hi = item.bounds or (-math.inf, math.inf)
        values = init if isinstance(init, tuple) else (init,)
        if not all(math.isfinite(v) and lo <= v <= hi for v in values):
            raise BadInput(f"{self.part.id}: {item.name}={init!r}; allowed: a finite number from {lo} to {hi}")
        return init

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Parameters and statistics back to their declared initial values (nothing random: the generator stays unused)."""
        for statistic in self.part.state:
            self.get_buffer(statistic.name).fill_(statistic.init)
        for name, init in self._inits.items():
            parameter = self.get_parameter(name)
            value = torch.tensor(init, dtype=parameter.dtype, device="cpu")
            if parameter.is_meta:
                continue
            if value.dim() and parameter.dim() == 2:
                value = value[:, None]
            parameter.copy_(value.to(parameter.device).expand_as(parameter))

    def learned(self, x: Tensor) -> list[Tensor]:
        """The learnable parameters, clamped to their bounds, shaped to broadcast against x."""
        out = []
        for item in self.part.learn:
            p = getattr(self, item.name)  # under functional_call a plain tensor
            if item.bounds is not None:
                p = p.clamp(*item.bounds)
            if self.per == "channel":
                p = self._along(p, x)
            elif not isinstance(self._inits[item.name], tuple):
                p = p.reshape(())
            out.append(p)
        return out

    def _along(self, values: Tensor, x: Tensor) -> Tensor:
        """One value a channel (in the last dimension) as it broadcasts against x."""
        return values.reshape(values.shape + (1,) * (x.dim() - 1 - self.channel_dim % x.dim()))

    def _check(self, x: Tensor) -> None:
        part, dim = self.part, self.channel_dim
        if not x.is_floating_point():
            raise BadInput(f"{part.id}: input has dtype {x.dtype}; expected a floating dtype")
        if str(x.dtype).removeprefix("torch.") in part.tags.no_dtypes:
            raise BadInput(f"{part.id}: input has dtype {x.dtype}, which it has no kernel for; convert it to float32")
        if part.tags.shape == "elementwise" and self.per != "channel":
            return
        if not -x.dim() <= dim < x.dim():
            raise BadInput(f"{part.id}: channel_dim={dim}, but the input has {x.dim()} dimensions (shape {tuple(x.shape)})")
        wants = self.per == "channel" or any(item.per == "channel" for item in part.state)
        if wants and x.shape[dim] != self.channels:
            raise BadInput(f"{part.id}: dimension {dim} of the input has size {x.shape[dim]}; expected channels={self.channels}")
        if part.tags.shape == "gated" and x.shape[dim] % 2:
            raise BadInput(f"{part.id}: dimension {dim} of the input has size {x.shape[dim]}; expected an even size")

    def forward(self, x: Tensor) -> Tensor:
        self._check(x)
        part = self.part
        options = {name: value for name, value in self.options.items() if name in part.fn_options}
        if part.tags.shape != "elementwise":
            options["dim"] = self.channel_dim
        function = part.fused_fn if self.fused else part.fn
        work = torch.float32 if part.tags.delicate and x.dtype in LOW else x.dtype
        learned = [p.to(work) for p in self.learned(x)]
        if part.tags.shape == "stateful":
            return self._stateful(function, x.to(work), learned, options).to(x.dtype)
        return function(x.to(work), *learned, **options).to(x.dtype)

    def _stateful(self, function: Callable[..., Any], x: Tensor, learned: list[Tensor], options: dict[str, Any]) -> Tensor:
        """A pass in training, which draws and brings the statistics up to date, or one in evaluation."""
        part = self.part
        kept = [getattr(self, item.name) for item in part.state]
        state = [
            self._along(b, x).to(x.dtype) if item.per == "channel" else b.reshape(()).to(x.dtype)
            for item, b in zip(part.state, kept, strict=True)
        ]
        if not self.training and part.evaluate is not None:
            return part.evaluate(x, *learned, *state, **options)
        draws = part.draw(x, self.generator, **options) if part.draw else ()
        y = function(x, *learned, *state, *draws, **options)
        if part.state:
            y, *new = y
            with torch.no_grad():
                for buffer, value in zip(kept, new, strict=True):
                    buffer.copy_(value.reshape(buffer.shape))
        return y

    def extra_repr(self) -> str:
        shown: dict[str, Any] = dict(self.options)
        if self.per == "channel":
            shown |= {"channels": self.channels, "channel_dim": self.channel_dim}
        return ", ".join(f"{k}={v!r}" for k, v in shown.items()) + (", fused=True" if self.fused else "")


def _generate(part: ActivationPart) -> type[nn.Module]:
    named = [inspect.Parameter(o.name, inspect.Parameter.KEYWORD_ONLY, default=o.default) for o in part.options]
    fixed = {"channels": None, "channel_dim": -1 if part.tags.shape in ("rowwise", "gated") else 1, "fused": False}
    head = [inspect.Parameter(k, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=v) for k, v in fixed.items()]

    def __init__(self: Activation, *args: Any, **kwargs: Any) -> None:
        nn.Module.__init__(self)
        kwargs.pop("inplace", None)  # timm passes it to every activation; the output is always a new tensor
        frame = dict(zip(fixed, args, strict=False))
        if len(args) > len(fixed) or set(frame) & set(kwargs):
            raise BadInput(f"{part.id}: too many positional arguments; the order is {', '.join(fixed)}")
        given = {k: v for k, v in kwargs.items() if k not in fixed}
        self._setup(**(fixed | frame | {k: v for k, v in kwargs.items() if k in fixed}), given=given)

    signature = inspect.Signature([*head, *named])
    source = f"{part.paper.slug or part.paper.title} {part.paper.equation}".rstrip()
    doc = f"{part.summary or part.name}\n\nf(x) = {part.formula}\n\nSource: {source}"
    body = {"__init__": __init__, "part": part, "__doc__": doc, "__module__": "netwright.activations"}
    return type(part.cls, (Activation,), body | {"__signature__": signature, "forward": own_code(Activation.forward)})


activation = ActivationPart

KIND = Kind("activation", "activations", "a function put between linear maps", NET)
