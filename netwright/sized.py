"""Modules built from sizes and options: what layers and norms have in common.

A class is written by hand and declared as a part; the part checks what the class is built from, and the class holds the
mathematics. Built on real tensors a module is ready for use: its parameters are drawn from torch's default generator,
as those of nn.Linear are.
"""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from netwright.expressions import equivalents
from netwright.fused import own_code
from netwright.part import BadInput, Part
from netwright.streams import initialise

LOW = (torch.float16, torch.bfloat16)
#: Sizes that are one number for all dimensions in space, or a number for each.
PER_AXIS = ("kernel_size", "stride", "padding", "dilation")


@final
@dataclass(frozen=True)
class Change:
    """What a module's methods can do to its structure: apply(module, x) for an input x. A saved state has to survive it."""

    name: str
    apply: Callable[[Any, Tensor], Any]


class Ready(type):
    """Checks sizes and options before a module is built, and fills its parameters after."""

    def __call__(cls, *sizes: Any, **options: Any) -> Any:
        part: SizedPart | None = cls.__dict__.get("part")
        if part is None:
            raise BadInput(f"{cls.__name__} is not declared as a part, which is what checks its sizes and options")
        given, resolved = part.sized(sizes, options)
        built = super().__call__(**given, **resolved)
        built.sizes, built.options = given, resolved
        if not any(t.is_meta for t in (*built.parameters(recurse=False), *built.buffers(recurse=False))):
            built.reset_parameters()
        return built


class Sized(nn.Module, metaclass=Ready):
    """Base of layers and norms. Abstract: see Layer and Norm."""

    part: ClassVar[Any]
    sizes: dict[str, Any]
    options: dict[str, Any]
    no_decay: frozenset[str] = frozenset()  # parameters that weight decay leaves alone
    resizable: frozenset[str] = frozenset()  # parameters and buffers that take the shapes of the state they load

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "forward" not in cls.__dict__ and cls.forward is not nn.Module.forward:
            # torch.compile counts recompilations by code object: with one for all parts, the ninth would run uncompiled.
            cls.forward = own_code(cls.forward)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Fill the module's own parameters and buffers; those of its submodules are theirs to fill. Default: it has none."""

    @property
    def quantities(self) -> dict[str, float]:
        """What declared costs are expressions of: sizes and options that are numbers; a class may add its own."""
        known = {**self.sizes, **self.options}
        return {name: value for name, value in known.items() if isinstance(value, (bool, int, float))}

    def adopt(self) -> None:
        """Called after a state was loaded: bring what is derived from tensors up to date. Default: nothing is."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in sorted(self.resizable):
            own, given = getattr(self, name), state_dict.get(prefix + name)
            if isinstance(given, Tensor) and own is not None and given.shape != own.shape and given.dim() == own.dim():
                fresh = own.detach().new_empty(given.shape)
                setattr(self, name, nn.Parameter(fresh, own.requires_grad) if isinstance(own, nn.Parameter) else fresh)
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.adopt()

    def extra_repr(self) -> str:
        default = {option.name: option.default for option in self.part.options}
        changed = [f"{k}={v!r}" for k, v in self.options.items() if default.get(k) != v]
        return ", ".join([*map(str, self.sizes.values()), *changed])


def resizable(model: nn.Module) -> set[str]:
    """Names in a model's state whose shapes follow the state that is loaded."""
    named = model.named_modules()
    return {f"{path}.{name}".lstrip(".") for path, module in named for name in getattr(module, "resizable", ())}


@dataclass(frozen=True)
class SizedPart(Part):
    """A part whose class is built from sizes and options. Abstract: a kind says which sizes there are."""

    cls: type[Any] = nn.Module
    toy: Mapping[str, Any] = field(default_factory=dict)  # sizes and options the checks build it at
    settings: tuple[Mapping[str, Any], ...] = ()  # further settings to check, beside every allowed value of every option
    changes: tuple[Change, ...] = ()
    parameters: float | str = 0  # trainable values, an expression of the module's quantities
    products: float | str = 0  # operations in matrix products and convolutions of a prediction, a row
    elementwise: float | str = 0  # elementwise operations of a prediction, a row, an exponential counted as one

    @property
    @abstractmethod
    def size_names(self) -> Mapping[str, Any]:
        """Sizes in the order of the constructor: name -> default, None where it has to be given."""

    @property
    def why_not_stackable(self) -> str:
        return self.tags.why_not_stackable

    def build(self, *sizes: Any, **options: Any) -> nn.Module:
        """The module. sizes: in order or by name; options by name. Raises BadInput, UnknownName."""
        return self.cls(*sizes, **options)

    def sized(self, sizes: Sequence[Any], options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """(sizes, options) by name with all defaults, checked."""
        names = self.size_names
        order = ", ".join(names)
        if len(sizes) > len(names):
            raise BadInput(f"{self.id}: {len(sizes)} sizes given; it takes {order}, then options by name")
        found: dict[str, Any] = {**names, **dict(zip(names, sizes, strict=False))}
        for name in names:
            if name in options:
                if list(names).index(name) < len(sizes):
                    raise BadInput(f"{self.id}: {name} is given twice")
                found[name] = options[name]
        if absent := [name for name, value in found.items() if value is None]:
            raise BadInput(f"{self.id} needs {' and '.join(absent)}: make({self.name!r}, {order})")
        resolved = self.resolve({name: value for name, value in options.items() if name not in names})
        for name, value in found.items():
            found[name] = self._size(name, value, resolved.get("dims", 1))
        return found, resolved

    def _size(self, name: str, value: Any, dims: int) -> Any:
        low, wanted = (0 if name == "padding" else 1), ""
        if name == "channel_dim":
            fits, wanted = _whole(value, -math.inf), "a whole number"
        elif name in PER_AXIS and isinstance(value, Sequence) and not isinstance(value, str):
            value = tuple(value)
            fits = len(value) == dims and all(_whole(v, low) for v in value)
        else:
            fits = _whole(value, low)
        if not fits:
            several = f", or {dims} of them" if name in PER_AXIS else ""
            raise BadInput(f"{self.id}: {name}={value!r}; expected {wanted or f'a whole number of at least {low}{several}'}")
        return value

    @abstractmethod
    def rows(self, built: Any, x: Tensor) -> int:
        """How many rows, of which the declared costs are the costs, an input holds."""

    @abstractmethod
    def row(self, **options: Any) -> tuple[int, ...]:
        """The shape of one row of the inputs the checks use, for the toy with these options."""

    def cost(self, built: Any, what: str, x: Tensor | None = None, y: Tensor | None = None) -> float:
        """A declared cost ("parameters", "products", "elementwise") of a module, the latter two a row of x with output y."""
        extents = {} if x is None or y is None else self.extents(built, x, y)
        return equivalents(getattr(self, what), {**built.quantities, **extents})

    def extents(self, built: Any, x: Tensor, y: Tensor) -> dict[str, int]:
        """Names that costs may use beside the module's quantities, read off an input and its output."""
        return {}

    def operations(self, built: Any, x: Tensor, y: Tensor) -> float:
        """Elementwise operations of one forward, which a count of products leaves out; parts inside count their own."""
        return self.rows(built, x) * self.cost(built, "elementwise", x, y)

    def points(self) -> list[dict[str, Any]]:
        """Options of every setting the checks run: the toy's, one other value of one option at a time, and `settings`."""
        own = {k: v for k, v in self.toy.items() if k not in self.size_names}
        every = [{**own, o.name: v} for o in self.options for v in o.allowed or () if v != own.get(o.name, o.default)]
        return [own, *every, *({**own, **further} for further in self.settings)]


def drawn(cls: Any, *sizes: int, seed: int = 0, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    """A module with every value drawn by the seed, in this dtype: for claims and checks. No generator of torch's is touched."""
    with torch.device("meta"):
        built = cls(*sizes, **options)
    built.to_empty(device="cpu").to(dtype)
    initialise(built, seed)
    return built


def bind(part: SizedPart) -> None:
    """Make a part the attribute `part` of its class, and the class's signature readable."""
    part.cls.part = part
    signature = inspect.signature(part.cls.__init__)
    part.cls.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])


def kebab(name: str) -> str:
    """MonoForward -> mono-forward."""
    return "".join("-" + c.lower() if c.isupper() else c for c in name).lstrip("-")


def summary_of(cls: type[Any]) -> str:
    """The first line of the docstring of the file that holds a class."""
    source: Any = inspect.getmodule(cls)
    return (source.__doc__ or "").strip().split("\n")[0]


def missing(options: Iterable[Any], name: str) -> bool:
    """Whether no option has this name."""
    return all(option.name != name for option in options)


def _whole(value: Any, low: float) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low
