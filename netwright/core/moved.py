"""Module paths of earlier releases, kept for one release: `netwright.nets.Blocks` and the like are found where they are now.

`netwright` installs `Finder`. An old module holds nothing; its names are looked up in the modules that took them over, and
a DeprecationWarning says which one has it. tests/test_moved.py goes through the list.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any, final

#: Path in 0.1, below netwright -> where its names are looked for now, in this order.
MOVED: dict[str, str] = {
    "aligned": "rules.feedback._aligned",
    "alignment": "waiting.alignment",
    "calls": "surgery.calls",
    "card": "show.card",
    "catalogue": "core.catalogue core.fingerprint",
    "checkpoint": "tensor.saving",
    "data": "tasks._read",
    "directfeedback": "rules.feedback._direct",
    "edges": "waiting.edges",
    "explain": "waiting.explain",
    "expressions": "core.expressions",
    "fused": "tensor.fused",
    "gallery": "show.gallery activations._page core.kind",
    "graphs": "engine.graph nets.graph.gcn tasks.graph._npz tensor.modules",
    "kinds": "core.kind",
    "kinds.activation": "activations._kind",
    "kinds.layer": "layers._kind tensor.modules tensor.fused tensor.precision",
    "kinds.norm": "layers._kind tensor.modules",
    "kinds.rule": (
        "rules._kind rules._toy engine.rule engine.blocks engine.graph engine.task core.errors core.expressions tensor.modules"
        " tensor.precision rules.feedback._aligned nets.graph.gcn"
    ),
    "kinds.task": (
        "tasks._kind engine.task engine.blocks engine.graph core.errors tasks._read tasks.graph._npz tensor.streams"
        " losses._former nets.dense.mlp nets.convolution.convnet nets.sequence.tiny_transformer nets.graph.gcn"
    ),
    "losses": "losses._former engine.task",
    "names": "core.errors",
    "nets": "engine.blocks engine.build nets._kind nets.dense.mlp nets.convolution.convnet nets.sequence.tiny_transformer",
    "norms": "layers",
    "norms.batch": "layers.norms",
    "norms.batch.prepbn": "layers.norms.prepbn",
    "norms.evolved": "layers.norms",
    "norms.evolved.evonorm": "layers.norms.evonorm",
    "pages": "show.pages show.place",
    "papers": "corpus.papers",
    "part": "core.part core.errors",
    "precision": "tensor.precision",
    "report": "show",
    "report.canvas": "show.canvas",
    "report.derive": "show.derive",
    "report.figures": "show.figures",
    "report.html": "show.html",
    "report.layers": "show.tables layers._page",
    "report.machine": "show.machine",
    "report.rules": "show.tables rules._page",
    "report.terminal": "show.terminal",
    "report.words": "show.words",
    "simplex": "losses.simplex._by_rows",
    "sites": "surgery.sites surgery.kinds",
    "sized": "tensor.modules",
    "sparsity": "waiting.sparsity",
    "stack": "engine.stack",
    "stats": "bench.stats",
    "status": "corpus.status",
    "streams": "tensor.streams",
    "stubs": "show.stubs",
    "study": "bench",
    "study.assemble": "bench.result activations._page",
    "study.canonical": "core.canonical",
    "study.claims": "bench.claims",
    "study.database": "bench.store.database",
    "study.executors": "bench.executors",
    "study.executors.processes": "bench.executors.processes",
    "study.executors.ray": "bench.executors.ray",
    "study.executors.serial": "bench.executors.serial",
    "study.lock": "bench.store.lock",
    "study.match": "bench.match",
    "study.outlook": "bench.outlook",
    "study.plan": "bench.plan",
    "study.probe": "bench.probe engine.meter",
    "study.progress": "bench.progress",
    "study.records": "bench.records",
    "study.run": "bench.study bench.carry compare",
    "study.salvage": "bench.store.salvage",
    "study.spec": "core.fingerprint bench.request bench.entrant bench.environment",
    "study.store": "bench.store.store",
    "study.tables": "bench.store.schema",
    "study.work": "bench.entrant bench.jobs",
    "swap": "surgery.swap",
    "swapping": "surgery",
    "swapping.fitting": "surgery.fitting",
    "swapping.functional": "surgery.functional",
    "swapping.gates": "surgery.gates activations._sites",
    "swapping.matching": "surgery.matching",
    "swapping.measure": "surgery.measure",
    "swapping.report": "surgery.changes",
    "swapping.sizes": "layers._sites",
    "swapping.target": "surgery.target",
    "symbolic": "waiting.symbolic",
    "testing": "contract core.contract",
    "testing.__main__": "contract.__main__",
    "testing.activation": "activations._contract",
    "testing.child": "contract.child",
    "testing.every": "contract.every",
    "testing.layer": "layers._contract",
    "testing.norm": "layers._contract_norms layers._contract",
    "testing.rule": "rules._contract",
    "testing.task": "tasks._contract",
    "train": "engine.loop optimizers._former tensor.groups",
    "untouched": "surgery.untouched",
    "userdata": "bench.own.data",
    "usertask": "bench.own.task",
    "widths": "core.widths",
}


_none = object()


def former(module: str, name: str, level: int = 2) -> Any:
    """What a name of a former module is now; raises AttributeError. level: whose line the warning names, 2 is the caller's."""
    places = MOVED[module.removeprefix("netwright.")].split()
    found = {place: getattr(importlib.import_module(f"netwright.{place}"), name, _none) for place in places}
    held = {place: value for place, value in found.items() if value is not _none}
    if not held:
        raise AttributeError(f"{module} was taken apart, and none of netwright.{', netwright.'.join(places)} has {name!r}")
    own = [place for place, value in held.items() if getattr(value, "__module__", "") == f"netwright.{place}"]
    place = next(iter([*own, *held]))
    if place.startswith("waiting."):
        return held[place]  # the public path stays the former one until its kind is there
    said = f"{module}.{name} is in netwright.{place} now; the old path goes with the next release"
    warnings.warn(said, DeprecationWarning, stacklevel=level)
    return held[place]


@final
class _Former(ModuleType):
    """A module of an earlier release."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return former(self.__name__, name, level=3)


@final
class Finder:
    """Finds the modules of MOVED, where no file stands in their place: a finder and a loader, which have no base to cost time."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        old = name.removeprefix("netwright.")
        if old == name or old not in MOVED:
            return None
        own: Any = self
        return ModuleSpec(name, own, is_package=any(other.startswith(f"{old}.") for other in MOVED))

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Former(spec.name, f"Moved: see netwright.{MOVED[spec.name.removeprefix('netwright.')].split()[0]}.")

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: names are looked up when they are asked for."""

    def get_code(self, name: str) -> CodeType:
        """What `python -m netwright.pages` runs: the module that took over."""
        place = MOVED[name.removeprefix("netwright.")].split()[0]
        run = f"import runpy\nrunpy.run_module('netwright.{place}', run_name='__main__', alter_sys=True)\n"
        return compile(run, name, "exec")


def install() -> None:
    """Put the finder behind the ordinary ones, once."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.append(Finder())
