"""The kind `activation`: a pure function of a tensor, and what a user may rely on about it.

Shape classes
    elementwise  y[i] depends on x[i] only
    rowwise      acts along the channel dim; the reference takes and returns a list
    gated        two equal halves of the channel dim in, one out; fills the slot `mlp`, never `activation`
    channels     y has ratio times the channels of x; the reference takes and returns a list
    stateful     behaves differently in training and evaluation; brings its own module and two references
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.fused import fuse, own_code
from netwright.kinds import Kind
from netwright.part import BadInput, Claim, Example, Identity, Learn, Option, Paper, Part

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
@dataclass(frozen=True)
class ActivationPart(Part):
    """An activation. Built by `activation(...)`; `part(x)` is not a thing: use `part.fn` or `part.build()`."""

    fn: Callable[..., Tensor] = torch.relu
    compiled: Callable[..., Tensor] | None = None  # the writing the compiler gets, where another is faster there
    cls: str = ""
    reference: Callable[..., Any] | None = None
    reference_eval: Callable[..., Any] | None = None
    learn: tuple[Learn, ...] = ()
    values: Mapping[float, float] | None = None
    examples: tuple[Example, ...] = ()
    limits: tuple[float, float] | None = None  # of f at -inf and +inf; math.nan where there is none
    ratio: float = 1.0  # channels out / channels in
    flops: float = 1.0  # elementwise operations an output element, exponentials counted as one each
    module_class: type[nn.Module] | None = None  # written by hand where a state needs it

    #: fn, compiled forward and backward at its first call, keeping only its tensor arguments (netwright.fused).
    fused_fn: Callable[..., Tensor] = field(init=False, repr=False, compare=False)
    #: The options fn itself takes; the others only choose initial values.
    fn_options: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        taken = inspect.signature(self.fn).parameters if self.options else {}  # a built-in has no signature to read
        object.__setattr__(self, "fused_fn", fuse(self.compiled or self.fn, self.id))
        object.__setattr__(self, "fn_options", frozenset(o.name for o in self.options if o.name in taken))

    @property
    def kind(self) -> str:
        return "activation"

    def slots(self) -> tuple[str, ...]:
        return ("mlp",) if self.tags.shape == "gated" else ("activation",)

    def build(self, **options: Any) -> nn.Module:
        """The module. Takes channels=, channel_dim=, fused=, its options; where it learns, per= and learnable=."""
        return self.module_type()(**options)

    def module_type(self) -> type[nn.Module]:
        """The part's nn.Module class, made once, so that pickle finds the same object it saved."""
        known = _CLASSES.get(self.id)
        if known is None or known[0] is not self:
            known = _CLASSES[self.id] = (self, self.module_class or _generate(self))
        return known[1]


class Activation(nn.Module):
    """Base of every generated activation module: holds the learnable parameters, calls the pure function.

    Input: any shape with floating dtype. Output: the same shape (times `ratio` along channel_dim), the same dtype.
    """

    part: ActivationPart
    no_decay: frozenset[str]

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
        if self.per == "channel" and channels is None:
            raise BadInput(f"{part.id}: per='channel' needs channels=, the size of dimension {channel_dim}")
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
        """Every learnable parameter back to its declared initial value (nothing random: the generator stays unused)."""
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
                trailing = x.dim() - 1 - self.channel_dim % x.dim()
                p = p.reshape(p.shape + (1,) * trailing)
            elif not isinstance(self._inits[item.name], tuple):
                p = p.reshape(())
            out.append(p)
        return out

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
        if self.per == "channel" and x.shape[dim] != self.channels:
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
        return function(x.to(work), *(p.to(work) for p in self.learned(x)), **options).to(x.dtype)

    def extra_repr(self) -> str:
        shown: dict[str, Any] = dict(self.options)
        if self.per == "channel":
            shown |= {"channels": self.channels, "channel_dim": self.channel_dim}
        return ", ".join(f"{k}={v!r}" for k, v in shown.items()) + (", fused=True" if self.fused else "")


_CLASSES: dict[str, tuple[ActivationPart, type[nn.Module]]] = {}


def _generate(part: ActivationPart) -> type[nn.Module]:
    named = [inspect.Parameter(o.name, inspect.Parameter.KEYWORD_ONLY, default=o.default) for o in part.options]
    fixed = {"channels": None, "channel_dim": -1 if part.tags.shape in ("rowwise", "gated") else 1, "fused": False}
    head = [inspect.Parameter(k, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=v) for k, v in fixed.items()]

    def __init__(self: Activation, *args: Any, **kwargs: Any) -> None:
        nn.Module.__init__(self)
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


def activation(
    fn: Callable[..., Tensor],
    *,
    cls: str,
    reference: Callable[..., Any],
    paper: Paper,
    formula: str = "",
    name: str = "",
    summary: str = "",
    tags: Tags | None = None,
    learn: tuple[Learn, ...] = (),
    options: tuple[Option, ...] = (),
    values: Mapping[float, float] | None = None,
    examples: tuple[Example, ...] = (),
    limits: tuple[float, float] | None = None,
    ratio: float | None = None,
    flops: float = 1.0,
    identities: tuple[Identity, ...] = (),
    claims: tuple[Claim, ...] = (),
    deviations: tuple[str, ...] = (),
    uses: tuple[str, ...] = (),
    alias_of: str = "",
    equals_at_init: tuple[str, ...] = (),
    retired: str = "",
    reference_eval: Callable[..., Any] | None = None,
    compiled: Callable[..., Tensor] | None = None,
    module_class: type[nn.Module] | None = None,
) -> ActivationPart:
    """Declare an activation.

    fn(x, *learned, **options) -> Tensor: the pure function; parts that are not elementwise also take dim=.
    reference(x, *learned, **options): the second writing, in Python floats (lists for rowwise, gated, channels).
    name: by default fn's name with '-' for '_'. summary: by default the first line of the file's docstring.
    ratio: channels out / channels in; 1/2 for gated by default.
    compiled: another writing of fn for fused=True, where the compiler makes more of it; checked to be equal.
    """
    tags = tags or Tags()
    extra: tuple[Option, ...] = ()
    if learn:
        scalars = tuple(Option(item.name, item.init) for item in learn if isinstance(item.init, (int, float)))
        extra = scalars + (
            Option("per", learn[0].per, "one parameter a 'tensor' or a 'channel'", allowed=("tensor", "channel")),
            Option("learnable", True, "whether the parameters are trained"),
        )
    source = inspect.getmodule(reference)  # fn may be torch's own
    return ActivationPart(
        name=name or fn.__name__.strip("_").replace("_", "-"), paper=paper,
        summary=summary or (source.__doc__ or "").strip().split("\n")[0], formula=formula, tags=tags,
        options=options + extra, identities=identities, claims=claims, deviations=deviations, uses=uses,
        alias_of=alias_of, equals_at_init=equals_at_init, retired=retired, module=reference.__module__, fn=fn, cls=cls,
        reference=reference, reference_eval=reference_eval, learn=learn, values=values, examples=examples,
        limits=limits, compiled=compiled, flops=flops, module_class=module_class,
        ratio=ratio if ratio is not None else (0.5 if tags.shape == "gated" else 1.0),
    )  # fmt: skip


KIND = Kind("activation", "activations", "a function put between linear maps")
