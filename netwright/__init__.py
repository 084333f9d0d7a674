"""netwright: swappable neural-network parts, each checked against its paper, and an honest bench for comparing them.

    netwright.list("activation")            every activation of the catalogue
    netwright.make("golu")                  an nn.Module
    netwright.swap(model, nn.GELU, "golu")  put it into a net that exists
    netwright.compare(["gelu", "golu"])     is it better, at equal cost, or can't we tell?

Names are imported on first use, so that `import netwright` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: The public verbs: name -> (module, name there).
_VERBS = {
    "list": ("netwright.catalogue", "parts"),
    "get": ("netwright.catalogue", "get"),
    "make": ("netwright.catalogue", "make"),
    "swap": ("netwright.swap", "swap"),
    "task": ("netwright.usertask", "task"),
    "compare": ("netwright.study.run", "compare"),
    "check": ("netwright.testing.child", "check"),
    "card": ("netwright.card", "card"),
    "cite": ("netwright.papers", "cite"),
    "Study": ("netwright.study.run", "Study"),
}

if TYPE_CHECKING:
    from netwright.card import card as card
    from netwright.catalogue import get as get
    from netwright.catalogue import make as make
    from netwright.catalogue import parts as list
    from netwright.papers import cite as cite
    from netwright.study.run import Study as Study
    from netwright.study.run import compare as compare
    from netwright.swap import swap as swap
    from netwright.testing.child import check as check
    from netwright.usertask import task as task

__all__ = ["Study", "__version__", "card", "check", "cite", "compare", "get", "list", "make", "swap", "task"]


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
