"""The head of a run names the sample of parts; with NETWRIGHT_COSTS=FOLDER the CPU time of every test is written there."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it runs in the background ignore it

os.environ["NETWRIGHT_SHARE"] = "0"  # tests that compare two studies would compare one with itself

COSTS = os.environ.get("NETWRIGHT_COSTS", "")
_spent: dict[str, list[Any]] = {}


def pytest_report_header() -> str:
    from sample import text

    return text()


def _cpu() -> float:
    """Seconds of this process and of those it has waited for."""
    now = os.times()
    return now.user + now.system + now.children_user + now.children_system


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    begun = _cpu()
    try:
        return (yield)
    finally:
        every = item.get_closest_marker("every_part") is not None
        row = _spent.setdefault(item.path.relative_to(Path(__file__).parent).as_posix(), [0.0, 0.0])
        row[every] += _cpu() - begun


def pytest_sessionfinish() -> None:
    if COSTS and _spent:
        _spent["(starting, collecting)"] = [0.0, _cpu() - sum(map(sum, _spent.values()))]
        (Path(COSTS) / f"{os.getpid()}.json").write_text(json.dumps(_spent), encoding="utf-8")
