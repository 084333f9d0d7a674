"""Modules built from sizes and options: what layers and norms have in common.

A class is written by hand and declared as a part; the part checks what the class is built from, and the class holds the
mathematics. Built on real tensors a module is ready for use: its parameters are drawn from torch's default generator,
as those of nn.Linear are. A declaration leaves the class as it is: the class finds the part that declares it.
"""

from __future__ import annotations

import inspect
import math
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

from netwright.core.errors import BadInput
from netwright.core.expressions import equivalents, names_in
from netwright.core.part import Part
from netwright.tensor.fused import own_code
from netwright.tensor.streams import initialise

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
    """Of classes whose modules are ready for use once built: on real tensors they are filled, by their method `_fill`."""

    @property
    def __signature__(cls) -> inspect.Signature:
        """What the constructor takes: Python would read the signature of `__call__` here instead."""
        own = inspect.signature(cls.__init__)  # type: ignore[misc]
        return own.replace(parameters=list(own.parameters.values())[1:])

    def __call__(cls, *given: Any, **options: Any) -> Any:
        built = cls._construct(*given, **options)
        if not any(t.is_meta for t in (*built.parameters(), *built.buffers())):
            built._fill()
        return built

    def _construct(cls, *given: Any, **options: Any) -> Any:
        """The module as its __init__ leaves it."""
        return super().__call__(*given, **options)


#: Class -> the part that declares it; see Declaration.
_DECLARED: dict[type[Any], SizedPart] = {}


@final
class Declaration:
    """What the attribute `part` of a class is until it is first read; then the class has its part in this place.

    A compiler takes an attribute of a class as it is, and would watch all entries of a table that it sees being read.
    """

    def __get__(self, module: Any, cls: type[Any]) -> SizedPart:
        if cls not in _DECLARED:
            raise AttributeError(f"{cls.__name__} is not declared as a part")
        cls.part = part = _DECLARED[cls]
        return part


class Sized(nn.Module, metaclass=Ready):
    """Base of layers and norms. Abstract: see Layer and Norm."""

    part: ClassVar[Any]
    sizes: dict[str, Any]
    options: dict[str, Any]
    no_decay: frozenset[str] = frozenset()  # parameters that weight decay leaves alone
    resizable: frozenset[str] = frozenset()  # parameters and buffers that take the shapes of the state they load

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.part = Declaration()  # of its own: a class that derives from a declared one is not declared by that
        if "forward" not in cls.__dict__ and cls.forward is not nn.Module.forward:
            # torch.compile counts recompilations by code object: with one for all parts, the ninth would run uncompiled.
            cls.forward = own_code(cls.forward)

    @classmethod
    def _construct(cls, *sizes: Any, **options: Any) -> Any:
        """The module, not filled yet. sizes: in order or by name; options by name. Raises BadInput, UnknownName."""
        part: SizedPart | None = getattr(cls, "part", None)
        if part is None:
            raise BadInput(f"{cls.__name__} is not declared as a part, which is what checks its sizes and options")
        given, resolved = part.sized(sizes, options)
        built = Ready._construct(cls, **given, **resolved)
        built.sizes, built.options = given, resolved
        return built

    @final
    def _fill(self) -> None:
        """Fill what the module itself holds from torch's default generator."""
        self.reset_parameters()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        getattr(type(self), "part", None)  # a module that was not built in this process may be compiled before it has run

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


@dataclass(frozen=True, kw_only=True)
class SizedPart(Part):
    """A part whose class is built from sizes and options. Abstract: a kind says which sizes there are.

    A class is declared once, by the first record made of it; dataclasses.replace may make others, which it doesn't follow.
    Raises BadInput where a class is declared again as something else, and where a cost isn't an expression.
    """

    toy: Mapping[str, Any] = field(default_factory=dict)  # sizes and options the checks build it at
    settings: tuple[Mapping[str, Any], ...] = ()  # further settings to check, beside every allowed value of every option
    changes: tuple[Change, ...] = ()
    parameters: float | str = 0  # trainable values, an expression of the module's quantities
    products: float | str = 0  # operations in matrix products and convolutions of a prediction, a row
    elementwise: float | str = 0  # elementwise operations of a prediction, a row, an exponential counted as one

    def __post_init__(self) -> None:
        copied = bool(self.module)  # only a copy is given what a declaration derives
        super().__post_init__()
        for cost in (self.parameters, self.products, self.elementwise):
            names_in(cost)  # raises where it isn't an expression
        known = _DECLARED.setdefault(self.cls, self)
        if known != self and not copied:
            raise BadInput(f"{self.cls.__name__} is declared as {known.id} already; define it anew, or derive a class from it")

    @property
    def cls(self) -> type[Any]:
        """The class that is declared."""
        return self.subject

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


@final
class Glorot(nn.Linear):
    """A linear map drawn from U(-a, a), a = sqrt(6 / (fan_in + outputs)); its bias, if any, is 0. fan_in: else its inputs."""

    def __init__(self, inputs: int, outputs: int, fan_in: int | None = None, bias: bool = False) -> None:
        self.bound = math.sqrt(6 / ((fan_in or inputs) + outputs))
        super().__init__(inputs, outputs, bias=bias)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        self.weight.uniform_(-self.bound, self.bound, generator=generator)
        if self.bias is not None:
            self.bias.zero_()


def drawn(cls: Any, *sizes: int, seed: int = 0, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    """A module with every value drawn by the seed, in this dtype: for claims and checks. No generator of torch's is touched."""
    with torch.device("meta"):
        built = cls(*sizes, **options)
    built.to_empty(device="cpu").to(dtype)
    initialise(built, seed)
    return built


def _whole(value: Any, low: float) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


# Roles: what each tensor of a model is, which its shape alone doesn't say ---------------------------------------------
@final
@dataclass(frozen=True)
class Role:
    """What a tensor is: its own axes that count outputs, inputs and independent matrices (experts), as far as they are known.

    Every axis of a bias or a norm is one of outputs; the rows of a lookup table are its inputs.
    """

    out: tuple[int, ...] = ()
    into: tuple[int, ...] = ()
    batch: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()  # sizes, along the first out axis, of what is fused there; () where that is one thing
    groups: int = 1  # independent matrices, one after another along axis 0 whatever that counts: a grouped convolution's
    why: str = ""  # why it doesn't multiply as a matrix, in a few words; "" where it does
    guessed: bool = False  # read off its shape and name alone: axis 0 is taken for outputs
    shape: tuple[int, ...] = ()  # filled in by `roles`, as is the next
    tied: tuple[str, ...] = ()  # the other names under which the same tensor stands

    @property
    def matrix(self) -> bool:
        """Whether it multiplies as a matrix, and may be orthogonalised. One row (of a depthwise convolution) is one too."""
        return bool(self.out and self.into and not self.why)

    @property
    def fits(self) -> bool:
        """Whether axes, blocks and groups are those of a tensor of this shape."""
        axes, known = sorted((*self.batch, *self.out, *self.into)), [*range(len(self.shape))]
        if axes not in ([], known) or self.blocks and self.groups > 1:
            return False
        return sum(self.blocks) in (0, *(self.shape[a] for a in self.out[:1])) and not (known and self.shape[0] % self.groups)

    def as_matrix(self, t: Tensor) -> Tensor:
        """A tensor of this role as (matrices, out, rest), blocks or groups outermost, then batch. A view where strides allow.

        A lookup table can be seen so too. Raises BadInput for another shape, for no inputs, and for blocks of unequal sizes.
        """
        if tuple(t.shape) != self.shape:
            raise BadInput(f"the role of a tensor of shape {self.shape} was given one of {tuple(t.shape)}")
        seen, order, stacked = self._layout()
        return t.reshape(seen).permute(order).reshape(stacked)

    def from_matrix(self, m: Tensor) -> Tensor:
        """The inverse of as_matrix. Raises what that raises."""
        seen, order, stacked = self._layout()
        if tuple(m.shape) != stacked:
            raise BadInput(f"a tensor of shape {self.shape} is a stack of shape {stacked}, not {tuple(m.shape)}")
        back = sorted(range(len(order)), key=order.__getitem__)
        return m.reshape([seen[axis] for axis in order]).permute(back).reshape(self.shape)

    def _layout(self) -> tuple[list[int], list[int], tuple[int, ...]]:
        """A shape where blocks or groups have an axis of their own; its axes in the order of the stack; the stack's shape."""
        if not (self.out and self.into) or len(set(self.blocks)) > 1:
            why = self.why or (f"split it first, as its blocks {self.blocks} differ" if self.blocks else "no axes are known")
            raise BadInput(f"a tensor of shape {self.shape} is no stack of matrices: {why}")
        at, many = (0, self.groups) if self.groups > 1 else (self.out[0], len(self.blocks) or 1)
        seen = [*self.shape[:at], many, self.shape[at] // many, *self.shape[at + 1 :]]
        parts = [[axis + (axis >= at) for axis in axes] for axes in (self.batch, self.out, self.into)]
        parts[0].insert(0, at)
        return seen, sum(parts, []), tuple(math.prod(seen[axis] for axis in part) for part in parts)


_CONV: Any = nn.modules.conv._ConvNd
_NORMS: Any = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
#: Modules whose tensors are known, with these tensors' names; what a subclass adds is guessed, as any other module's is.
_KNOWN: tuple[tuple[Any, str], ...] = (
    ((nn.Linear, nn.Bilinear, nn.PReLU, nn.Embedding, nn.EmbeddingBag, _CONV, *_NORMS), "weight|bias"),
    (nn.MultiheadAttention, "in_proj_(weight|bias)|[qkv]_proj_weight|bias_[kv]"),
    ((nn.RNNBase, nn.RNNCellBase), r"(weight|bias)_(ih|hh|hr)(_l\d+(_reverse)?)?"),
    (ParametrizationList, r"original\d*"),
)
#: What a name says of a tensor of two axes or more: a doubtful one is left to an optimizer that can take any tensor.
_HINTS = (("bias", "a bias"), ("embed", "a lookup table"), ("table", "a lookup table"))


def roles(model: nn.Module) -> dict[str, Role]:
    """What each parameter of a model is, by name; a shared one once, under its first name. Draws and changes nothing.

    A module knows best: one that has a method `roles_of() -> {name of its own parameter: Role}` is asked first.
    Raises BadInput for a lazy module that has not run, and for a roles_of() that doesn't fit its module.
    """
    found: dict[int, dict[str, Role]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        said = module.roles_of() if hasattr(type(module), "roles_of") else {}
        if absent := sorted(set(said) - set(module._parameters)):
            raise BadInput(f"{path or 'the model'} ({type(module).__name__}): roles_of() names {absent}, which it doesn't hold")
        for name, t in module.named_parameters(recurse=False, remove_duplicate=False):
            full = f"{path}.{name}".lstrip(".")
            if is_lazy(t):
                raise BadInput(f"{full} has no shape yet: run the model once on an input, then ask for its roles")
            guessed, said_or_known = guess(name, t), said.get(name) or _known(module, path.split(".")[-1], name, t)
            role = replace(said_or_known or guessed, shape=tuple(t.shape))
            if name in said and not role.fits:
                raise BadInput(f"{full}: roles_of() says {role}, which does not fit its shape")
            found.setdefault(id(t), {})[full] = role if role.fits else replace(guessed, shape=role.shape)
    return {next(iter(each)): _shared(each) for each in found.values()}


def by_role(model: nn.Module) -> dict[str, int]:
    """How many values are in tensors of each role, most first: "a matrix", or why it is none; guessed ones apart."""
    count: Counter[str] = Counter()
    for role in roles(model).values():
        count[(role.why or "a matrix") + ", guessed" * role.guessed] += math.prod(role.shape)
    return dict(count.most_common())


def _shared(each: Mapping[str, Role]) -> Role:
    """One role for all names of a tensor: the one that allows least, and a known one before a guess."""
    role = min(each.values(), key=lambda role: (role.matrix, role.guessed))
    also = ", also multiplied as a matrix" if not role.matrix and any(other.matrix for other in each.values()) else ""
    return replace(role, tied=tuple(each)[1:], why=role.why + also)


def _known(module: Any, attribute: str, name: str, t: Tensor) -> Role | None:
    """The role of a tensor whose module is known. attribute: what its parent calls the module."""
    every, rest = tuple(range(t.dim())), tuple(range(1, t.dim()))
    stem, _, end = name.rpartition("_")
    if end in ("orig", "g", "v") and isinstance(vars(module).get(stem), Tensor):
        return Role(why=f"parametrised: {stem} is made of it")  # torch's older spectral_norm, weight_norm and pruning
    if t.dim() == 3 and isinstance(getattr(module, "is_transposed", None), bool) and len(t) == getattr(module, "num_experts", -1):
        axes = (2, 1) if module.is_transposed else (1, 2)  # the experts of transformers, which say how they are stored
        fused = name == "gate_up_proj" and getattr(module, "is_concatenated", False)
        return Role(axes[:1], axes[1:], (0,), blocks=(t.shape[axes[0]] // 2,) * 2 if fused else ())
    if any(cls.__name__ == "Conv1D" and cls.__module__.startswith("transformers.") for cls in type(module).__mro__):
        return {"weight": Role((1,), (0,)), "bias": Role((0,), why="a bias")}.get(name)
    if not any(isinstance(module, cls) and re.fullmatch(names, name) for cls, names in _KNOWN) or not t.is_floating_point():
        return None
    if isinstance(module, ParametrizationList):
        return Role(why=f"parametrised: by {', '.join(type(by).__name__.lstrip('_') for by in module)}")
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        return Role((1,), (0,), why="a lookup table")
    if isinstance(module, (nn.PReLU, *_NORMS)):
        scale = "an activation's slope" if isinstance(module, nn.PReLU) else "a norm's scale"
        return Role(every, why="a norm's shift" if name == "bias" else scale)
    blocks: tuple[int, ...] = ()
    if isinstance(module, nn.Linear) and attribute == "qkv" and module.out_features == 3 * module.in_features:
        blocks = (module.in_features,) * 3  # what timm calls queries, keys and values in one
    elif name.startswith("in_proj"):  # of an attention
        blocks = (module.embed_dim,) * 3
    elif re.search("_[ih]h", name) and len(t) > module.hidden_size:  # gates, of a recurrent net
        blocks = (module.hidden_size,) * (len(t) // module.hidden_size)
    if "bias" in name:
        return Role(every, blocks=blocks, why="a bias")
    if isinstance(module, _CONV) and module.transposed:
        return Role((1,), (0, *rest[1:]), groups=module.groups)
    return Role((0,), rest, blocks=blocks, groups=module.groups if isinstance(module, _CONV) else 1)


def guess(name: str, t: Tensor) -> Role:
    """The role of a tensor of which only shape and name are known. A single row is likelier added than multiplied by."""
    every, shape = tuple(range(t.dim())), tuple(t.shape)
    if not t.is_floating_point():
        return Role(every, why="not made of real numbers", shape=shape)
    if sum(size != 1 for size in t.shape) < 2:
        return Role(every, why="a scalar" if t.numel() == 1 else "a vector", shape=shape)
    hint = next((said for word, said in _HINTS if word in name), "a single row" if len(t) == 1 else "")
    return Role((0,), every[1:], why=hint, guessed=True, shape=shape)
