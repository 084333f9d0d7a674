"""Versions and machine, from a fixed list: what a record was made with. No environment variables, no paths."""

from __future__ import annotations

import importlib.metadata
import platform

import torch


def environment(device: str = "cpu") -> dict[str, str]:
    """What a study's records were made with, as text by name."""
    rows = {
        "netwright": _version("netwright"),
        "torch": torch.__version__,
        "numpy": _version("numpy"),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
    }
    if device.startswith("cuda"):
        rows["gpu"] = torch.cuda.get_device_name(device)
        rows["cuda"] = str(torch.version.cuda)
    return rows


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
