"""functional=True: activation calls (F.gelu(x), torch.relu(x), x.relu_(), an attribute) turned into submodules.

A function kept as an attribute is replaced by a module of the same name. A call inside a forward is reached by a symbolic
trace (torch.fx) of that one module, its children left whole: the module stays the same object, with its hooks, parameters
and keys, and gets a class of the same name whose forward is the trace with the calls made submodules. A trace keeps what
the forward did with tensors and nothing else, so a forward is refused where more is seen to matter: values of tensors,
attributes it sets, random numbers of its own, tensors it makes, `with` blocks. Training and evaluation are traced apart;
arguments that are not tensors are fixed, and a call with others raises.
"""

from __future__ import annotations

import ast
import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from netwright.surgery.calls import Unreached, forwards, is_function, torchs
from netwright.surgery.changes import Journal
from netwright.surgery.kinds import sites_of, swappable
from netwright.surgery.measure import same
from netwright.surgery.untouched import call, quiet, unrunnable, untouched
from netwright.tensor.tap import tapped

_OUT_OF_REACH = ("TorchScript", "computes a weight", "plain ")  # of Unreached.how
_CONSTANTS = (type(None), bool, int, float, str)


@final
class OwnTracer(fx.Tracer):
    """Traces one module's own forward; its children stay calls."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


class _Untraceable(Exception):
    """Why a forward is left alone."""


@final
class Call(nn.Module):
    """The function of a former call with its constant arguments, out of place."""

    def __init__(self, function: Callable[..., Tensor], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        super().__init__()
        self.function, self.args, self.kwargs = function, tuple(args), dict(kwargs)
        try:
            bound = inspect.signature(function).bind(None, *args, **kwargs).arguments
        except (TypeError, ValueError):  # built-ins have no signature
            bound = self.kwargs
        self.inplace = bool(bound.get("inplace")) or function.__name__.endswith("_")

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x.clone() if self.inplace else x, *self.args, **self.kwargs)

    def __repr__(self) -> str:
        inside = [*map(repr, self.args), *(f"{k}={v!r}" for k, v in self.kwargs.items() if k != "inplace")]
        return f"{self.function.__name__}(x{''.join(', ' + word for word in inside)})"


@final
@dataclass
class Converted:
    """Calls that are submodules now, and why others are not: {(path, function): reason}."""

    calls: list[Call] = field(default_factory=list)
    refused: dict[tuple[str, str], str] = field(default_factory=dict)
    changed: dict[str, nn.Module] = field(default_factory=dict)  # owners, by path

    def left(self, unreached: Sequence[Unreached]) -> list[Unreached]:
        """What is still unreached, with the reasons."""
        return [replace(u, why=self.refused.get((u.path, u.function.rstrip("_")), "")) for u in unreached]


def matcher(what: Any) -> Callable[[str, str, nn.Module], bool]:
    """Whether a call is `what`: of the path of its module, the function's name, and that module.

    A module type or part means the functions of its name, a path pattern is held against "path.function".
    """
    if isinstance(what, tuple):
        each = [matcher(item) for item in what]
        return lambda path, name, owner: any(one(path, name, owner) for one in each)
    if isinstance(what, str):
        part = next((p for p in swappable() if what in (p.id, p.name)), None)
        names = _functions(part)
        if not names:
            return lambda path, name, owner: fnmatchcase(f"{path}.{name.rstrip('_')}".lstrip("."), what)
    elif isinstance(what, type) or torchs(what):
        names = {_plain(what.__name__)}
    elif sites_of(what) is not None:
        names = _functions(what)
    elif callable(what) and not isinstance(what, nn.Module):
        return lambda path, name, owner: bool(what(f"{path}.{name.rstrip('_')}".lstrip("."), owner))
    else:
        return lambda path, name, owner: False
    return lambda path, name, owner: _plain(name) in names


def _functions(part: Any) -> set[str]:
    """Plain names of the functions that a part is, if it is one."""
    sites = sites_of(part)
    return set() if sites is None else {_plain(name) for name in sites.functions(part)}


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def convert(model: nn.Module, what: Any, unreached: Sequence[Unreached], example: Any, changes: Journal) -> Converted:
    """Turn the calls that are `what` into Call submodules, noted in changes.

    With an example every converted forward is checked on it, in evaluation and, where the model can be run so, in
    training: the same function put back has to give the same output to the bit; else that forward is left as it was.
    """
    wanted = matcher(what)
    owners: dict[str, set[str]] = {}
    for u in unreached:
        reachable = not u.how.startswith(_OUT_OF_REACH) and u.function.isidentifier()
        if reachable and wanted(u.path, u.function, model.get_submodule(u.path)):
            owners.setdefault(u.path, set()).add(_plain(u.function))
    modules = {path: model.get_submodule(path) for path in owners}
    arguments: dict[str, list[tuple[Any, Any]]] = {path: [] for path in modules}
    before = [_output(model, example, training, modules, arguments) for training in (False, True)]
    done = Converted()
    paths = list(owners)
    made = {path: _try(modules[path], path, owners[path], arguments, changes, done) for path in paths}
    if example is not None and any(made.values()) and not _unchanged(model, example, before):
        changes.undo()  # one by one, to find which to leave
        done.calls.clear()
        for path in paths:
            own = Journal()
            if calls := _try(modules[path], path, owners[path], arguments, own, done):
                if _unchanged(model, example, before):
                    changes.made += own.made
                    continue
                own.undo()
                done.calls = [c for c in done.calls if c not in calls]
                _refuse(done, path, owners[path], "its trace gives another output on the example")
            made[path] = []
    done.changed = {path: modules[path] for path in paths if made[path]}
    return done


def _output(
    model: nn.Module, example: Any, training: bool, owners: Mapping[str, nn.Module], arguments: Mapping[str, list[Any]]
) -> Any:
    """The model's output, noting what the owners are called with; None without an example or where it can't be had."""
    if example is None:
        return None

    def note(path: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        arguments[path].append((args, kwargs))

    with quiet(model, training), tapped(owners, before=note):
        try:
            return call(model, example)
        except Exception as error:  # the user's own forward may raise anything
            if training:
                return None  # batch statistics of one sample, for one
            raise unrunnable(error) from error


def _unchanged(model: nn.Module, example: Any, before: Sequence[Any]) -> bool:
    for training, output in zip((False, True), before, strict=True):
        if output is not None:
            try:
                with quiet(model, training):
                    now = call(model, example)
            except Exception:  # a forward whose trace went wrong fails in its own way
                return False
            if not same(output, now):
                return False
    return True


def _refuse(done: Converted, path: str, names: set[str], why: str) -> None:
    done.refused |= {(path, name): why for name in names}


def _try(
    owner: nn.Module, path: str, names: set[str], arguments: Mapping[str, Any], changes: Journal, done: Converted
) -> list[Call]:
    """The calls of one module, converted; [] with the reason noted where they can't be."""
    own = Journal()
    try:
        calls = _attributes(owner, names, own) or _trace(owner, names, arguments[path], own)
    except _Untraceable as error:
        own.undo()
        _refuse(done, path, names, str(error))
        return []
    changes.made += own.made
    done.calls += calls
    return calls


def _attributes(owner: nn.Module, names: set[str], changes: Journal) -> list[Call]:
    """Functions kept as attributes: modules of the same name take their places."""
    calls = []
    for name, value in list(vars(owner).items()):
        function = value.func if isinstance(value, partial) else value
        given = (value.args, value.keywords) if isinstance(value, partial) else ((), {})
        if callable(function) and not isinstance(function, type) and _plain(getattr(function, "__name__", "")) in names:
            if given[0]:
                raise _Untraceable(f"its attribute {name} has positional arguments filled in")
            calls.append(Call(function, *given))
            changes.set(owner, name, calls[-1])
    return calls


def _trace(owner: nn.Module, names: set[str], seen: Sequence[tuple[Any, Any]], changes: Journal) -> list[Call]:
    """The owner gets a class whose forward is its trace, with the calls made submodules."""
    kind = type(owner)
    if isinstance(owner, (torch.jit.ScriptModule, fx.GraphModule)) or getattr(owner, "_compiled_call_impl", None) is not None:
        raise _Untraceable(f"a {kind.__name__} is compiled, scripted or a graph already")
    if "forward" in vars(owner):
        raise _Untraceable("it has a forward of its own set on the instance")
    if any(isinstance(node, (ast.With, ast.AsyncWith)) for _, tree in forwards(kind) if tree for node in ast.walk(tree)):
        raise _Untraceable("its forward holds a with block, which a trace loses")
    fixed = _fixed(owner, seen)
    evaluation, training = (_graph(owner, fixed, mode) for mode in (False, True))
    found = [_matching(graph, names) for graph in (evaluation, training)]
    calls = [made for _, made in found[0]]
    if [repr(made) for made in calls] != [repr(made) for _, made in found[1]]:
        raise _Untraceable("it calls other activations in training than in evaluation")
    if not calls:
        raise _Untraceable("its trace does not call it")
    for i, made in enumerate(calls):
        changes.set(owner, name := _free(owner, made), made)
        for graph, matches in zip((evaluation, training), found, strict=True):
            _insert(graph, matches[i][0], name, made.inplace)
    ahead, trained = (fx.GraphModule(owner, graph, kind.__name__) for graph in (evaluation, training))
    changes.set(owner, "__class__", _class(kind, ahead, trained))
    return calls


def _fixed(owner: nn.Module, seen: Sequence[tuple[Any, Any]]) -> dict[str, Any]:
    """Arguments of the forward that are no tensors, with the one value each has: as called, else their defaults."""
    signature = inspect.signature(owner.forward)
    bound = [signature.bind(*args, **kwargs) for args, kwargs in seen]
    fixed: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        values = [b.arguments.get(name, parameter.default) for b in bound] or [parameter.default]
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            if any(b.arguments.get(name) for b in bound):
                raise _Untraceable(f"it is called with further arguments, {name}")
        elif any(isinstance(v, _CONSTANTS) for v in values):
            if any(type(v) is not type(values[0]) or v != values[0] for v in values):
                raise _Untraceable(f"it is called with several kinds of {name}")
            fixed[name] = values[0]
        elif bound and not all(any(isinstance(leaf, Tensor) for leaf in tree_leaves(v)) for v in values):
            raise _Untraceable(f"its argument {name} is a {type(values[0]).__name__}")
    return fixed


def _graph(owner: nn.Module, fixed: dict[str, Any], training: bool) -> fx.Graph:
    with untouched(owner):
        owner.training = training
        before = {**vars(owner), **owner._buffers, **owner._parameters}
        dice = (torch.random.get_rng_state(), random.getstate())
        try:
            graph = OwnTracer().trace(owner, dict(fixed))
        except Exception as error:  # a forward that depends on values fails in its own way
            text = str(error).splitlines()[0] if str(error) else ""
            raise _Untraceable(f"it can't be traced: {type(error).__name__}: {text[:90]}") from error
        after = {**vars(owner), **owner._buffers, **owner._parameters}
        if not torch.equal(dice[0], torch.random.get_rng_state()) or dice[1] != random.getstate():
            raise _Untraceable("its forward draws random numbers that a trace would fix")
        if any(name.startswith("_tensor_constant") for name in after):
            raise _Untraceable("its forward makes tensors that a trace would fix")
        if changed := [name for name in after if name not in before or after[name] is not before[name]]:
            raise _Untraceable(f"its forward sets {', '.join(changed)}, which a trace would lose")
    for node in graph.nodes:  # fx numbers the arguments it fixes; they keep their names here
        if node.op == "placeholder" and node.target not in fixed and (name := str(node.target).rpartition("_")[0]) in fixed:
            node.target = name
    return graph


def _matching(graph: fx.Graph, names: set[str]) -> list[tuple[fx.Node, Call]]:
    """Calls to replace, each with its function and constants as a module."""
    out = []
    for node in graph.nodes:
        name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
        if node.op not in ("call_method", "call_function") or not is_function(name) or _plain(name) not in names:
            continue
        if _plain(name) == "glu":
            raise _Untraceable("it is gated: it halves the channels")
        args = node.args[1:]
        kwargs = {key: value for key, value in node.kwargs.items() if key != "input"}
        if any(isinstance(leaf, fx.Node) for leaf in tree_leaves((args, kwargs))):
            raise _Untraceable("it takes computed values besides its input")
        function = getattr(Tensor, str(name)) if node.op == "call_method" else node.target
        out.append((node, Call(function, args, kwargs)))
    return out


def _insert(graph: fx.Graph, node: fx.Node, name: str, inplace: bool) -> None:
    """The submodule called `name` instead of the call."""
    x: Any = node.args[0] if node.args else node.kwargs["input"]  # as it is now: an earlier call may have been replaced
    with graph.inserting_before(node):
        new = graph.call_module(name, (x,))
    if inplace:  # what is read from the input later on has to be the new value
        for user in [user for user in x.users if user is not node and new < user]:
            user.replace_input_with(x, new)
    node.replace_all_uses_with(new)
    graph.erase_node(node)


def _free(owner: nn.Module, made: Call) -> str:
    base, n = f"swapped_{made.function.__name__.strip('_')}", 0
    while hasattr(owner, base if n == 0 else f"{base}_{n}"):
        n += 1
    return base if n == 0 else f"{base}_{n}"


def _class(kind: type, ahead: fx.GraphModule, trained: fx.GraphModule) -> type:
    """kind, with the traced forward; called like kind. Instances deep-copy; pickle refuses them (save the state_dict)."""
    evaluate, train = type(ahead).forward, type(trained).forward
    if ahead.code == trained.code:
        forward = evaluate
    else:

        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            return (train if self.training else evaluate)(self, *args, **kwargs)

        forward.__wrapped__ = evaluate  # type: ignore[attr-defined]  # for those who trace or read it
    forward.__signature__ = inspect.signature(kind.forward)  # type: ignore[attr-defined]
    body = {"forward": forward, "__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), body)
