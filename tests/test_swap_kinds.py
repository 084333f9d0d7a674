"""A new kind whose parts can be swapped in is one folder: `_sites.py` says all that swap has to know of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

KIND = '''"""The kind `gain`: a number for every channel, by which it is multiplied."""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.kind import NET, Kind
from netwright.core.part import Part

KIND_VERSION = 1


@final
@dataclass(frozen=True)
class GainPart(Part):
    @property
    def kind(self) -> str:
        return "gain"

    def build(self, **options: Any) -> nn.Module:
        return self.subject(**options)

    def slots(self) -> tuple[str, ...]:
        return ("gain",)


KIND = Kind("gain", "gains", "a factor for every channel", NET)
'''
PART = '''"""A gain that starts at 2."""

import torch
from torch import Tensor, nn

from netwright.core.part import Option, Paper
from netwright.gains._kind import GainPart


class Double(nn.Module):
    def __init__(self, channels: int, start: float = 2.0) -> None:
        super().__init__()
        self.start, self.weight = start, nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        nn.init.constant_(self.weight, self.start)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


PART = GainPart(
    Double, name="double", paper=Paper(title="A test", authors="Nobody", year=2026), summary="A gain that starts at 2.",
    options=(Option("start", 2.0),),
)
'''
SITES = '''"""How a gain gets into a model that exists: it is told the channels."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from torch import nn

from netwright.gains._kind import GainPart
from netwright.tensor.sites import Sites, Target

SLOTS = ("gain",)


@final
@dataclass(frozen=True)
class GainTarget(Target):
    part: GainPart = field(kw_only=True)

    def make(self, arguments: Mapping[str, Any]) -> nn.Module:
        return self.part.build(**arguments)


@final
class GainSites(Sites):
    record = GainPart
    words = ("gain",)

    def target(self, part: GainPart, options: Mapping[str, Any]) -> GainTarget:
        part.resolve(options)
        return GainTarget(part.id, options, frozenset({"channels"}), frozenset({"channels"}), part=part)


SITES = GainSites()
'''
USED = """
import torch
from torch import nn
from netwright import swap
from netwright.core import catalogue
from netwright.core.errors import Misfit, UnknownName

part = catalogue.get("gain/double")
assert catalogue.kinds()["gain"].sites().SLOTS == ("gain",)
for to in ("double", "double:start=2", part, part.subject):
    model = nn.Sequential(nn.Linear(3, 5), nn.Identity(), nn.Linear(5, 2))
    swap(model, nn.Identity, to)
    assert torch.equal(model[1](torch.ones(5)), 2 * torch.ones(5)), to
for what in ("gain/double", part, part.subject):
    swap(model, what, "double:start=3")
    assert model[1].start == 3, what
task, unknown = catalogue.parts("task")[0].id, "no-such-part"
for to, error, text in ((task, Misfit, "gains, layers, norms"), (unknown, UnknownName, "gain, layer or norm")):
    try:
        swap(model, nn.Linear, to)
    except error as raised:
        assert text in str(raised), raised
    else:
        raise AssertionError(to)
"""


@pytest.mark.every_part
def test_a_new_kind_that_can_be_swapped_in_is_one_folder(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "netwright", tmp_path / "netwright", ignore=shutil.ignore_patterns("__pycache__"))
    wing = tmp_path / "netwright" / "gains"
    (wing / "plain").mkdir(parents=True)
    for name, text in {"__init__": "", "_kind": KIND, "_sites": SITES, "plain/__init__": "", "plain/double": PART}.items():
        (wing / f"{name}.py").write_text(text)
    words = [sys.executable, "-c", USED]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
