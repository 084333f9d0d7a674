"""Activations that are calls rather than submodules, found by looking at attributes and by reading source."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, final

import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from netwright.surgery.kinds import activates

_FILES = ("activation", "activations", "activations_me")  # where libraries keep theirs
_NOT_POINTWISE = {"multiheadattention", "softmin", "softmax", "softmax2d", "logsoftmax"}
#: Activation functions as PyTorch names them, without underscores: "relu", "leakyrelu", "gelu", ...
FUNCTIONS = frozenset(name.lower() for name in torch.nn.modules.activation.__all__) - _NOT_POINTWISE


def is_function(name: str) -> bool:
    """Whether a function or method of this name is an activation: relu, relu_, leaky_relu, ..."""
    return name.replace("_", "").lower() in FUNCTIONS


def torchs(what: Any) -> bool:
    """Whether this is an activation function of PyTorch's, such as torch.relu or F.gelu."""
    function = callable(what) and not isinstance(what, (type, nn.Module)) and is_function(getattr(what, "__name__", ""))
    return function and (not inspect.isfunction(what) or what.__module__.split(".")[0] == "torch")


def is_activation(module: nn.Module) -> bool:
    """An activation module: torch's own, a part's, or one whose file is called `activation(s)`."""
    if any(cls.__module__ == "torch.nn.modules.activation" for cls in type(module).__mro__):
        return type(module).__name__.lower() not in _NOT_POINTWISE
    file = type(module).__module__.rpartition(".")[2]
    return activates(module) or (file in _FILES and next(module.children(), None) is None)


@final
@dataclass(frozen=True)
class Unreached:
    """An activation that is no submodule, so that swap doesn't replace it."""

    path: str  # of the module whose forward computes it; "" is the model itself
    module: str  # that module's type
    function: str
    how: str  # how it was found
    why: str = ""  # why functional=True could not change it


def attributes(net: nn.Module, names: Mapping[int, str], places: set[int]) -> Iterator[Unreached]:
    """Functions and modules kept as plain attributes, modules that make a weight, and compiled parts: out of reach."""
    scripted: list[str] = []
    for module in net.modules():
        if is_activation(module) or id(module) in places:
            continue
        path = names[id(module)]
        if isinstance(module, torch.jit.ScriptModule) and not path.startswith(tuple(scripted)):
            scripted.append(f"{path}.")
            yield Unreached(path, type(module).__name__, "whatever it calls", "TorchScript")
        if isinstance(module, ParametrizationList):
            for child in filter(is_activation, module):
                yield Unreached(path, type(module).__name__, type(child).__name__, "computes a weight")
        for name, value in vars(module).items():
            plain = value.func if isinstance(value, partial) else value
            function = getattr(plain, "__name__", "")
            if callable(plain) and not isinstance(plain, type) and is_function(function):
                yield Unreached(path, type(module).__name__, function, f"attribute {name}")
            if name.startswith("_") or not isinstance(value, (list, tuple, dict)):
                continue
            for item in value.values() if isinstance(value, dict) else value:
                if isinstance(item, nn.Module) and is_activation(item) and id(item) not in names:
                    how = f"plain {type(value).__name__} {name}"
                    yield Unreached(path, type(module).__name__, type(item).__name__, how)


def sources(net: nn.Module, names: Mapping[int, str], places: set[int]) -> Iterator[Unreached]:
    for module in net.modules():
        if is_activation(module) or id(module) in places or isinstance(module, torch.jit.ScriptModule):
            continue
        cls: type = type(module)
        for name in _calls(cls):
            yield Unreached(names[id(module)], type(module).__name__, name, "source of forward")


@cache
def _calls(cls: type) -> tuple[str, ...]:
    """Activation calls in the source of forward and of the methods of self it refers to."""
    calls: dict[str, None] = {}
    for name, tree in forwards(cls):
        if tree is None:
            if not cls.__module__.startswith("torch."):
                calls[f"{name}: no source to read"] = None
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (called := _called(node.func)) and is_function(called):
                calls[called] = None
    return tuple(calls)


def forwards(cls: type) -> Iterator[tuple[str, ast.Module | None]]:
    """forward and the methods of self it refers to: their names and source, None where there is none to read."""
    waiting, done = ["forward"], {"forward"}
    while waiting:
        function = getattr(cls, waiting.pop(), None)
        if not inspect.isfunction(function) or function is nn.Module.forward:
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        except (OSError, TypeError, SyntaxError):
            yield function.__name__, None
            continue
        yield function.__name__, tree
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
                if node.attr not in done and inspect.isfunction(getattr(cls, node.attr, None)):
                    done.add(node.attr)
                    waiting.append(node.attr)


def _called(function: ast.expr) -> str:
    """The name in f(x), F.f(x) or x.f(); "" for self.f(x) and self.a.f(x), which are attributes and modules."""
    if isinstance(function, ast.Name):
        return function.id
    if not isinstance(function, ast.Attribute):
        return ""
    root: ast.expr = function.value
    while isinstance(root, (ast.Attribute, ast.Subscript)):
        root = root.value
    return "" if isinstance(root, ast.Name) and root.id == "self" else function.attr
