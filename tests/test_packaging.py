"""What makes the project installable: metadata, pins, one place for the version."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="needs a checkout")


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required(*extras: str) -> set[str]:
    lines = project()["dependencies"] + [line for e in extras for line in project()["optional-dependencies"][e]]
    return {canonical(re.match(r"[\w.-]+", line).group()) for line in lines}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.!]+", line) for line in kept), [x for x in kept if "==" not in x or "+" in x]
    return {canonical(name): version for name, version in (line.split("==") for line in kept)}


def test_metadata():
    data = project()
    assert data["name"] == "netwright" and data["license"] == "Apache-2.0" and data["requires-python"] == ">=3.11"
    assert data["scripts"] == {"netwright": "netwright.cli:main"}
    assert set(data["optional-dependencies"]) == {"bench", "data", "ray", "gpu", "all", "dev"}
    assert required() == {"torch", "numpy", "safetensors"}
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert (ROOT / "netwright" / "py.typed").exists()


def test_constraints_pin_all_that_make_installs():
    extras = re.search(r"^EXTRAS \?= (\S+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M).group(1).split(",")
    pinned = pins()
    assert required(*extras) <= set(pinned)
    assert len(pinned) == sum(line[:1] not in ("", "#") for line in (ROOT / "constraints.txt").read_text().splitlines())


def test_pins_lie_in_the_declared_ranges():
    packaging = pytest.importorskip("packaging.requirements")
    pinned, extras = pins(), project()["optional-dependencies"]
    for line in project()["dependencies"] + [line for name, some in extras.items() if name != "all" for line in some]:
        requirement = packaging.Requirement(line)
        version = pinned.get(canonical(requirement.name))
        assert version is None or requirement.specifier.contains(version), (line, version)


def test_the_version_stands_in_one_place():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert config["project"]["dynamic"] == ["version"] and "version" not in config["project"]
    assert config["tool"]["hatch"]["version"]["path"] == "netwright/core/__init__.py"
    source = (ROOT / "netwright" / "core" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "(\d+\.\d+\.\d+)"$', source, re.M).group(1)
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M).group(1) == version
    assert "\nversion:" not in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    stated = re.compile(rf"version\w*\s*[=:]\s*[\"']{re.escape(version)}[\"']", re.I)
    files = [*(ROOT / "netwright").rglob("*.py"), ROOT / "pyproject.toml"]
    assert [p.name for p in files if stated.search(p.read_text(encoding="utf-8"))] == ["__init__.py"]


def test_make_targets_exist_and_build_the_environment():
    if shutil.which("make") is None:
        pytest.skip("needs make")
    for target in ("demo", "test", "check", "check-all", "bench", "evidence"):
        shown = subprocess.run(["make", "-Bn", target], cwd=ROOT, capture_output=True, text=True)
        assert shown.returncode == 0, shown.stderr
        assert "-c constraints.txt" in shown.stdout and "-m venv" in shown.stdout, target


def test_ci_runs_check_then_test():
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash") and "set -euo pipefail" in text
    commands = re.findall(r"^make (?:--\S+ )?(\w+)", text, re.M)
    assert commands == ["check", "test"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_the_package_ships_its_data():
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    assert hatch["wheel"]["only-include"] == ["netwright", "evidence"]
    assert hatch["wheel"]["sources"] == {"evidence": "netwright/_evidence"}
    ignored = [line for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split() if not line.startswith("#")]
    assert not {"*.json", "*.toml", "*.html", "evidence", "/evidence/", "netwright"} & set(ignored)


@pytest.mark.every_part
def test_stubs_hold_the_interface_and_the_classes_of_a_wing():
    from netwright.core import catalogue
    from netwright.show import stubs

    for kind in catalogue.kinds().values():
        text = stubs.stub(kind.name)
        classes = {name for part in catalogue.parts(kind.name) if (name := catalogue.cls_name(part))}
        assert bool(text) == bool(classes)
        assert all(f"class {name}(" in text for name in classes)
        assert not text or f"from netwright.{kind.folder}._kind import Tags as Tags" in text
