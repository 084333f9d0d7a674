"""Parts of a distribution that is not installed: written to a folder, found through its entry points."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from netwright.core import catalogue

HEAD = '''"""A part of a test."""
import os
import signal
import time
import torch
from torch import Tensor
from netwright.activations import Tags, activation
from netwright.engine.rule import Rule
from netwright.rules import rule
from netwright.rules import Tags as RuleTags
from netwright.core.part import Learn, Option, Paper
PAPER = Paper(title="A test", authors="Nobody", year=2020)
'''

ACTIVATION = '''
def {name}(x: Tensor{arguments}) -> Tensor:
    """{doc}"""
    return {body}

def reference(x: float{arguments}) -> float:
    return x

PART = activation({name}, cls="{cls}", reference=reference, formula="x", paper=PAPER, tags=Tags(), {more})
'''


def activation(name: str, body: str = "torch.tanh(x)", doc: str = "A test.", arguments: str = "", more: str = "") -> str:
    """The source of a plug-in activation."""
    return HEAD + ACTIVATION.format(name=name, body=body, doc=doc, arguments=arguments, cls=name.title(), more=more)


RULE = (
    HEAD
    + '''
class {cls}(Rule):
    """{doc}"""
    count = 0

    def forward(self, x):
        return self.net(x)

    def losses(self, x, y, *draws):
        self.count += 1
        loss = self.problem.loss(self.net(x), y)
        {body}
        yield loss

PART = rule({cls}, paper=PAPER, tags=RuleTags(stackable={stackable}, why_not_stackable="it counts its steps"))
'''
)


def rule(cls: str, body: str, doc: str = "A test.") -> str:
    """The source of a plug-in rule: backpropagation, with a line run at every step that may look at self.count."""
    return RULE.format(cls=cls, body=body, doc=doc, stackable=False)


def write(folder: Path, sources: dict[str, str], version: str = "1.0") -> None:
    """A distribution in the folder: one module a part, and its metadata."""
    folder.mkdir(exist_ok=True)
    for name, source in sources.items():
        (folder / f"plug_{name}.py").write_text(source, encoding="utf-8")
    for old in folder.glob("plugged-*.dist-info"):
        for file in old.iterdir():
            file.unlink()
        old.rmdir()
    info = folder / f"plugged-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: plugged\nVersion: {version}\n", encoding="utf-8")
    entries = "".join(f"{name} = plug_{name}:PART\n" for name in sources)
    (info / "entry_points.txt").write_text(f"[netwright.parts]\n{entries}", encoding="utf-8")


@contextlib.contextmanager
def installed(folder: Path) -> Iterator[None]:
    """The folder's distribution is importable and in the catalogue inside, gone outside."""
    sys.path.insert(0, str(folder))
    forget()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        forget()


def forget() -> None:
    """Plug-in modules and the catalogue are read anew."""
    import importlib

    for name in [n for n in sys.modules if n.startswith("plug_")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    catalogue._index.cache_clear()
    catalogue._broken.clear()
