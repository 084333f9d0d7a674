"""Where a part could go in a net: how wide the signal is there, and which activations are calls no swap can reach.

Widths come from what can be known best: an example run, else a symbolic trace (torch.fx), else the layers registered
beside the place. Calls come from the example run and the trace, else from reading the source of the forwards.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, final

from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from netwright.core.errors import BadInput, UnknownName, near, unknown
from netwright.surgery.calls import Unreached, attributes, is_activation, is_function, sources, torchs
from netwright.surgery.kinds import flow_of, sites_of, swappable
from netwright.surgery.untouched import call, plain_modules, quiet, unrunnable, untouched, unwrap
from netwright.tensor.sites import Flow
from netwright.tensor.tap import tapped

_POOLS = ("_MaxPoolNd", "_AvgPoolNd", "_AdaptiveMaxPoolNd", "_AdaptiveAvgPoolNd")
#: Modules that give as many channels as they take.
_NEUTRAL = (nn.Identity, nn.modules.dropout._DropoutNd, *(getattr(nn.modules.pooling, name) for name in _POOLS))


@final
@dataclass(frozen=True)
class Width:
    """Channels at a place, and how that is known. More than one size: different sizes pass through one module."""

    sizes: tuple[int, ...] = ()
    channel_dim: int | None = None
    how: str = "unknown"

    @property
    def channels(self) -> int | None:
        return self.sizes[0] if len(self.sizes) == 1 else None


@final
@dataclass
class Look:
    """What looking at a model found. Modules are keyed by id()."""

    unreached: list[Unreached] = field(default_factory=list)
    seen: dict[int, list[Width]] = field(default_factory=dict)  # one a call in the example run
    traced: dict[int, list[Width | None]] = field(default_factory=dict)  # one a call in the trace; None: not known
    output: Any = None  # of the example run


def _layer(module: nn.Module | None) -> Flow | None:
    """The widths of a module that decides about them: one of torch's, or a part's."""
    if isinstance(module, nn.Linear):
        return Flow(module.in_features or None, module.out_features, -1, "Linear.out_features")
    if isinstance(module, nn.modules.conv._ConvNd):
        return Flow(module.in_channels or None, module.out_channels, 1, f"{type(module).__name__}.out_channels")
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return Flow(module.num_features, module.num_features, 1, f"{type(module).__name__}.num_features")
    if isinstance(module, nn.GroupNorm):
        return Flow(module.num_channels, module.num_channels, 1, "GroupNorm.num_channels")
    # Subclasses of LayerNorm are known to normalise another dimension, so only the original tells where channels lie.
    shape: Any = getattr(module, "normalized_shape", ())
    if type(module) in (nn.LayerNorm, nn.RMSNorm) and len(shape) == 1:
        size = shape[0]
        return Flow(size, size, -1, f"{type(module).__name__}.normalized_shape")
    if isinstance(module, nn.Embedding):
        return Flow(None, module.embedding_dim, -1, "Embedding.embedding_dim")
    return flow_of(module)


def _nearest(children: Sequence[tuple[str, nn.Module | None]], last: bool, strict: bool) -> tuple[str, Flow] | None:
    """The first layer of known width among children; strict: nothing before it may change the width."""
    for name, child in children:
        if child is None:
            continue
        inner = list(child.named_children()) if isinstance(child, nn.Sequential) else []
        found = _nearest(inner[::-1] if last else inner, last, True) if inner else None
        if (layer := _layer(child) or (found and found[1])) is not None:
            return name, layer
        if strict and not isinstance(child, _NEUTRAL) and not is_activation(child):
            return None
    return None


def neighbour(parent: nn.Module, name: str) -> Width:
    """The width at `name` from the layers registered beside it in `parent`.

    In a Sequential the order is the order of the computation. Elsewhere it is a guess, trusted only where the layer
    before gives what the layer after takes, or where all layers of the parent give the same.
    """
    children = list(parent._modules.items())
    at = [child for child, _ in children].index(name)
    ordered = isinstance(parent, nn.Sequential)
    before = _nearest(children[:at][::-1], True, ordered)
    after = _nearest(children[at + 1 :], False, ordered)
    if before is not None:
        known, size = before, before[1].gives
    elif after is not None and after[1].takes:
        known, size = after, after[1].takes
    elif (own := _layer(parent)) is not None and not ordered:
        return Width((own.gives,), own.channel_dim, f"parent {own.name}")
    else:
        return Width()
    if not ordered:
        agrees = before is not None and after is not None and after[1].takes == size
        widths = {layer.gives for _, child in children if (layer := _layer(child)) is not None}
        if not agrees and widths != {size}:
            return Width()
    label = known[1].name if known is before else known[1].name.split(".")[0] + ", which follows"
    return Width((size,), known[1].channel_dim, f"neighbour {known[0]}: {label}")


def merge(widths: Sequence[Width]) -> Width:
    """What several calls or paths say together; unknown where one of them is."""
    if not widths or any(not w.sizes for w in widths):
        return Width()
    dims = {w.channel_dim for w in widths}
    sizes = tuple(sorted({size for w in widths for size in w.sizes}))
    return Width(sizes, dims.pop() if len(dims) == 1 else None, widths[0].how)


def look(model: nn.Module, places: set[int], example: Any = None, channel_dim: int | None = None) -> Look:
    """Run, trace or read the model: widths at the modules whose id() is in places, and activation calls.

    example: a tensor, a tuple of positional arguments or a mapping of keyword arguments of the forward.
    channel_dim: where the example's channels lie; by default judged by the layer that ran last.
    The model is left as it was. Raises BadInput where the example can't be run.
    """
    found = Look()
    prefix, net = unwrap(model)
    names = {id(m): (prefix + path).rstrip(".") for path, m in net.named_modules()}
    if example is not None:
        _run(net, names, places, example, channel_dim, found)
    traced = _trace(net, prefix, places, found)
    found.unreached += attributes(net, names, places)
    if example is None and not traced:
        found.unreached += sources(net, names, places)
    first: dict[tuple[str, str], Unreached] = {}
    for item in found.unreached:
        first.setdefault((item.path, item.function.rstrip("_")), item)
    found.unreached = sorted(first.values(), key=lambda u: (u.path, u.function))
    return found


@final
class _Listener(TorchFunctionMode):
    """Notes activation functions that are called while the innermost running module is not itself an activation."""

    def __init__(self, stack: list[nn.Module], names: Mapping[int, str], places: set[int], found: Look) -> None:
        super().__init__()
        self.stack, self.names, self.places, self.found = stack, names, places, found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if is_function(name) and not any(is_activation(m) or id(m) in self.places for m in self.stack):
            owner = self.stack[-1] if self.stack else None
            path = self.names.get(id(owner), "")
            self.found.unreached.append(Unreached(path, type(owner).__name__, name, "example run"))
        return func(*args, **(kwargs or {}))


def _run(net: nn.Module, names: Mapping[int, str], places: set[int], example: Any, channel_dim: int | None, found: Look) -> None:
    if any(is_lazy(t) for t in (*net.parameters(), *net.buffers())):
        raise BadInput("the model has lazy modules that don't know their sizes yet; run it once, then swap")
    stack: list[nn.Module] = []
    layers: list[Flow] = []  # run so far; the last one tells where the channels lie

    def enter(path: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        stack.append(module)
        if id(module) in places:
            x = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.dim() > 0), None)
            if x is not None:
                dim = _channel_dim(x, layers[-1] if layers else None) if channel_dim is None else channel_dim
                found.seen.setdefault(id(module), []).append(Width((x.shape[dim],), dim, "example run"))

    def leave(path: str, module: nn.Module, args: Any, output: Any) -> None:
        stack.pop()
        layers.extend(filter(None, [_layer(module)]))

    plain = {names[id(m)]: m for m in plain_modules(net)}
    with quiet(net), tapped(plain, leave, before=enter, always=True):
        try:
            with _Listener(stack, names, places, found):
                found.output = call(net, example)
        except Exception as error:  # the user's own forward may raise anything
            raise unrunnable(error) from error


def _channel_dim(x: Tensor, layer: Flow | None) -> int:
    """Where the channels of x lie, given the layer that ran last: the dimension that has the size the layer gave."""
    if x.dim() == 1 or layer is None:
        return 1 if x.dim() > 3 else -1
    dims = (layer.channel_dim, -1, 1)
    return next((dim for dim in dims if x.shape[dim] == layer.gives), layer.channel_dim)


@final
class _Tracer(fx.Tracer):
    def __init__(self, places: set[int]) -> None:
        super().__init__()
        self.places = places

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        childless = next(m.children(), None) is None
        torch_own = type(m).__module__.startswith("torch.nn")
        return id(m) in self.places or is_activation(m) or _layer(m) is not None or (childless and torch_own)


def _trace(net: nn.Module, prefix: str, places: set[int], found: Look) -> bool:
    """Add what a symbolic trace shows; False where the forward can't be traced."""
    with untouched(net):
        try:
            graph = net.graph if isinstance(net, fx.GraphModule) else _Tracer(places).trace(net)
        except Exception:  # a forward that depends on values fails in its own way
            return False
    modules = dict(net.named_modules(remove_duplicate=False))
    for node in graph.nodes:
        if node.op == "call_module" and id(modules[node.target]) in places:
            found.traced.setdefault(id(modules[node.target]), []).append(_producer(node, modules))
        name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
        if node.op in ("call_method", "call_function") and is_function(name):
            # The last entry is the innermost module; keys of repeated calls carry a suffix, the values don't.
            path = next(reversed((node.meta.get("nn_module_stack") or {"": ("", None)}).values()))[0]
            owner = type(modules.get(path, net)).__name__
            found.unreached.append(Unreached((prefix + path).rstrip("."), owner, name, "torch.fx trace"))
    return True


def _producer(node: fx.Node, modules: Mapping[str, nn.Module]) -> Width | None:
    """The layer whose output reaches this node's module, through nothing that could change the width."""
    source = node.args[0] if node.args else None
    while isinstance(source, fx.Node) and source.op == "call_module":
        module = modules[str(source.target)]
        if (layer := _layer(module)) is not None:
            return Width((layer.gives,), layer.channel_dim, f"traced from {source.target}: {layer.name}")
        if not isinstance(module, _NEUTRAL) and not is_activation(module):
            return None
        source = source.args[0] if source.args else None
    return None


# What matches ---------------------------------------------------------------------------------------------------------


@final
@dataclass
class Place:
    """One old module, all slots (parent, name) that hold it, and all paths that lead to these slots."""

    old: nn.Module
    paths: list[str] = field(default_factory=list)
    slots: list[tuple[nn.Module, str]] = field(default_factory=list)
    width: Width = Width()
    new: nn.Module = field(default_factory=nn.Identity)
    notes: list[str] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)  # sizes of what goes here, where it has any
    resized: bool = False  # its widths are not those of the old module
    shape: tuple[int, ...] | None = None  # of the first input in the example run
    variance_ratio: float | None = None
    fit_error: float | None = None


def places_of(model: nn.Module, what: Any, also: Collection[int] = (), lenient: bool = False) -> list[Place]:
    """Every module that is `what`, and those whose id() is in also, which were calls until now.

    lenient: a name that is no module's and no part's is no error, since it is the name of calls.
    """
    try:
        found = _matcher(model, what)
    except UnknownName:
        if not lenient:
            raise
        found = _none
    named = list(model.named_modules(remove_duplicate=False))
    modules = dict(named)
    free = [(path, module) for path, module in named if ".parametrizations." not in f".{path}"]
    hits = [(path, module) for path, module in free if id(module) in also or found(path, module)]
    if any(path == "" for path, _ in hits):
        raise BadInput(f"the model itself matches ({type(model).__name__}); nothing holds it: build a new one instead")
    slots = {(id(modules[path.rpartition(".")[0]]), path.rpartition(".")[2]) for path, _ in hits}
    places: dict[int, Place] = {}
    for path, module in named:
        parent, _, name = path.rpartition(".")
        if path and (id(modules[parent]), name) in slots:
            place = places.setdefault(id(module), Place(module))
            place.paths.append(path)
            if all(holder is not modules[parent] or key != name for holder, key in place.slots):
                place.slots.append((modules[parent], name))
    for place in places.values():
        inside = [m for m in place.old.modules() if m is not place.old and id(m) in places]
        if inside:
            inner = places[id(inside[0])].paths[0]
            raise BadInput(f"{place.paths[0]} and {inner}, which is inside it, both match; say which to replace")
    return list(places.values())


def _none(path: str, module: nn.Module) -> bool:
    return False


def _matcher(model: nn.Module, what: Any) -> Callable[[str, nn.Module], bool]:
    if sites_of(what) is not None:
        what = what.module_type()
    if isinstance(what, tuple) and what:
        each = [_matcher(model, item) for item in what]
        return lambda path, module: any(match(path, module) for match in each)
    if isinstance(what, type) and issubclass(what, nn.Module):
        return lambda path, module: isinstance(module, what)
    if isinstance(what, str):
        return _named_matcher(model, what)
    if torchs(what):
        return _none  # no module is a function
    if callable(what) and not isinstance(what, (type, nn.Module)):
        return lambda path, module: bool(what(path, module))
    raise BadInput(
        f"what={what!r}; expected a module type, a tuple of types, a part, a path pattern or a function (path, module) -> bool"
    )


def _named_matcher(model: nn.Module, what: str) -> Callable[[str, nn.Module], bool]:
    paths = [path for path, _ in model.named_modules(remove_duplicate=False) if path]
    is_path = any(fnmatchcase(path, what) for path in paths)
    if is_path or any(c in what for c in "*?["):
        if known := [part.id for part in swappable() if what == part.name]:
            raise BadInput(f"{what!r} is a path of this model and a part; write {known[0]!r} for the part")
        return lambda path, module: path != "" and fnmatchcase(path, what)
    part = next((p for p in swappable() if what in (p.id, p.name)), None)
    if part is None:
        raise unknown("module path or part", what, [*paths, *(p.id for p in swappable())])
    cls: Any = part.module_type()
    return lambda path, module: isinstance(module, cls)


def _spelt(cls: type) -> str:
    """Where a type comes from, since several libraries have, for one, a GELU."""
    return f"nn.{cls.__name__}" if cls.__module__.startswith("torch.nn.") else f"{cls.__module__}.{cls.__qualname__}"


def nothing(model: nn.Module, what: Any, found: Look) -> BadInput:
    """The error for a swap that matches no module: near types, activation modules and calls there are."""
    held = {type(m).__name__: _spelt(type(m)) for m in model.modules()}
    types: dict[str, list[str]] = {}
    for path, module in model.named_modules():
        if path and is_activation(module) and ".parametrizations." not in f".{path}":
            types.setdefault(_spelt(type(module)), []).append(path)
    text = f"nothing in {type(model).__name__} is {_spelt(what) if isinstance(what, type) else repr(what)}"
    if isinstance(what, type) and (close := near(what.__name__, held)):
        text += f"; near types: {', '.join(held[name] for name in close)}"
    shown = [f"{name} ({', '.join(paths[:3])}{', ...' if len(paths) > 3 else ''})" for name, paths in types.items()]
    text += f"; activation modules: {', '.join(shown) or 'none'}"
    if found.unreached:
        calls = [f"{u.function} in {u.path or 'the model'}{f' ({u.why})' if u.why else ''}" for u in found.unreached]
        text += f"; activations that are calls (functional=True changes those it can trace): {', '.join(calls[:8])}"
        text += f" and {len(calls) - 8} more" if len(calls) > 8 else ""
    return BadInput(f"{text}; nothing was changed")
