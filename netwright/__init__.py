"""netwright: swappable neural-network parts, each checked against its paper, and an honest bench for comparing them.

    netwright.list("activation")            every activation of the catalogue
    netwright.make("golu")                  an nn.Module
    netwright.surgery.swap(model, nn.GELU, "golu")  put it into a net that exists
    netwright.compare(["gelu", "golu"])     is it better, at equal cost, or can't we tell?
    netwright.judge({"gelu": [...], "golu": [...]}, ...)  the same of scores you have already

Names are imported on first use, so that `import netwright` costs nothing.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from netwright.core import __version__ as __version__
from netwright.core.moved import install as _paths_of_earlier_releases

#: The public verbs: name -> (module, name there).
_VERBS = {
    "list": ("netwright.core.catalogue", "parts"),
    "get": ("netwright.core.catalogue", "get"),
    "make": ("netwright.core.catalogue", "make"),
    "swap": ("netwright.surgery.swap", "swap"),
    "task": ("netwright.bench.own.task", "task"),
    "compare": ("netwright.compare", "compare"),
    "judge": ("netwright.compare", "judge"),
    "check": ("netwright.contract.child", "check"),
    "card": ("netwright.show.card", "card"),
    "cite": ("netwright.corpus.papers", "cite"),
    "Study": ("netwright.bench.study", "Study"),
    "run": ("netwright.compare", "run"),
    "reading": ("netwright.tensor.stepping", "reading"),
    "parameter_groups": ("netwright.tensor.groups", "parameter_groups"),
}

_paths_of_earlier_releases()


class _Package(ModuleType):
    """Keeps a verb a verb: importing the module netwright.compare would otherwise hide netwright.compare(...)."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _VERBS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

if TYPE_CHECKING:
    from netwright.bench.own.task import task as task
    from netwright.bench.study import Study as Study
    from netwright.compare import compare as compare
    from netwright.compare import judge as judge
    from netwright.compare import run as run
    from netwright.contract.child import check as check
    from netwright.core.catalogue import get as get
    from netwright.core.catalogue import make as make
    from netwright.core.catalogue import parts as list
    from netwright.corpus.papers import cite as cite
    from netwright.show.card import card as card
    from netwright.surgery.swap import swap as swap
    from netwright.tensor.groups import parameter_groups as parameter_groups
    from netwright.tensor.stepping import reading as reading

__all__ = [
    "Study",
    "__version__",
    "card",
    "check",
    "cite",
    "compare",
    "get",
    "judge",
    "list",
    "make",
    "parameter_groups",
    "reading",
    "run",
    "swap",
    "task",
]


def __getattr__(name: str) -> Any:
    import importlib

    if name in _VERBS:
        module, there = _VERBS[name]
        value = getattr(importlib.import_module(module), there)
        globals()[name] = value
        return value
    if name.startswith("_"):
        raise AttributeError(name)
    try:  # netwright.activations and the other folders
        return importlib.import_module(f"netwright.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"netwright.{name}":
            raise
    raise AttributeError(f"netwright has no {name!r}; its verbs: {', '.join(_VERBS)}")


def __dir__() -> Any:
    return sorted(__all__)
