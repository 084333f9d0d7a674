"""Module paths of 0.1 work for one release, say where things are now, and are the same objects."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from netwright.core.moved import MOVED

ROOT = Path(__file__).parents[1]
#: Old path -> names that 0.1 documented there, and where each is defined now.
NAMES = {
    "activations": {"Tags": "activations._kind"},
    "alignment": {"convert": "waiting.alignment"},
    "card": {"card": "show.card"},
    "catalogue": {"fingerprint": "core.fingerprint", "get": "core.catalogue"},
    "checkpoint": {"load": "tensor.saving", "save": "tensor.saving"},
    "edges": {"prune": "waiting.edges", "regularisation": "waiting.edges"},
    "fused": {"compiler": "tensor.fused"},
    "graphs": {"Gcn": "nets.graph.gcn", "Graph": "engine.graph", "Glorot": "tensor.modules", "read_graph": "tasks.graph._npz"},
    "kinds.activation": {"activation": "activations._kind"},
    "kinds.layer": {"Layer": "layers._kind", "drawn": "tensor.modules", "fuse": "tensor.fused", "layer": "layers._kind"},
    "kinds.norm": {"Norm": "layers._kind", "norm": "layers._kind", "drawn": "tensor.modules"},
    "kinds.rule": {
        "Rule": "engine.rule",
        "Toy": "rules._toy",
        "rule": "rules._kind",
        "Blocks": "engine.blocks",
        "Phase": "engine.rule",
    },
    "kinds.task": {"Problem": "engine.task", "task_part": "tasks._kind", "require": "core.errors", "Data": "engine.task"},
    "losses": {"accuracy": "engine.task", "cross_entropy": "losses._former"},
    "nets": {
        "Blocks": "engine.blocks",
        "ConvNet": "nets.convolution.convnet",
        "Mlp": "nets.dense.mlp",
        "norm_named": "nets._kind",
    },
    "part": {"BadInput": "core.errors", "Claim": "core.part", "Option": "core.part", "Paper": "core.part"},
    "study.records": {"StudyResult": "bench.records"},
    "study.run": {"Means": "bench.carry", "Study": "bench.study", "compare": "compare"},
    "study.spec": {"ENGINE_VERSION": "core.fingerprint", "open_task": "bench.request"},
    "testing": {"Check": "core.contract", "expect": "core.contract", "run": "contract"},
    "train": {"OPTIMIZERS": "optimizers._former", "spared": "tensor.groups", "train": "engine.loop"},
    "usertask": {"task": "bench.own.task"},
}


@pytest.mark.parametrize("old", MOVED)
def test_every_former_module_is_importable_and_its_places_exist(old: str) -> None:
    module = importlib.import_module(f"netwright.{old}")
    places = [importlib.import_module(f"netwright.{place}") for place in MOVED[old].split()]
    public = [(name, value) for place in places for name, value in vars(place).items() if not name.startswith("_")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert public or any(other.startswith(f"{old}.") for other in MOVED), old
        assert all(hasattr(module, name) for name, _ in public)


@pytest.mark.parametrize(("old", "name", "place"), [(o, n, p) for o, names in NAMES.items() for n, p in names.items()])
def test_a_former_name_is_the_same_object(old: str, name: str, place: str) -> None:
    module = importlib.import_module(f"netwright.{old}")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = getattr(module, name)
    assert found is getattr(importlib.import_module(f"netwright.{place}"), name)
    warned = [str(w.message) for w in said if w.category is DeprecationWarning]
    assert (
        old in ("activations", "nets")
        and place.startswith(old)
        or place.startswith("waiting.")
        or any(f"netwright.{place} now" in text for text in warned)
    ), warned


def test_a_name_that_never_was_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="taken apart.*no_such_name"):
        importlib.import_module("netwright.part").no_such_name  # noqa: B018
    with pytest.raises(ImportError):
        importlib.import_module("netwright.no_such_module")
    assert not hasattr(importlib.import_module("netwright.study"), "no_such_name")


#: Where 0.1 defined the classes that a pickle of its modules names.
PICKLED = {
    "norms.batch.prepbn": ("PRepBN",),
    "norms.evolved.evonorm": ("EvoNormB0", "EvoNormS0"),
    "sized": ("Sized",),
    "nets": ("Mlp", "Dense", "Residual"),
    "graphs": ("Gcn",),
    "aligned": ("AlignedLinear",),
}


@pytest.mark.parametrize(("old", "name"), [(old, name) for old, names in PICKLED.items() for name in names])
def test_pickles_of_modules_find_their_classes(old: str, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = pickle.loads(f"cnetwright.{old}\n{name}\n.".encode())
    assert isinstance(found, type) and found.__name__ == name and found.__module__ != f"netwright.{old}"


@pytest.mark.parametrize("old", ["testing", "pages"])
def test_former_commands_run(old: str) -> None:
    words = [sys.executable, "-m", f"netwright.{old}", "--help"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "usage: python -m netwright." in done.stdout, done.stderr


def test_a_verb_stays_a_verb() -> None:
    script = (
        "import netwright\n"
        "from netwright.compare import leader_of\n"
        "import netwright.show.card, netwright.surgery.swap, netwright.compare\n"
        "verbs = [getattr(netwright, name) for name in netwright.__all__ if name != '__version__']\n"
        "assert all(callable(verb) for verb in verbs), verbs\n"
        "assert callable(netwright.compare) and netwright.compare.__name__ == 'compare'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
