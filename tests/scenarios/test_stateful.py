"""Activations that keep statistics or draw random numbers, in a study: one run at a time, and the same every time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mine import task

import netwright


@pytest.mark.parametrize("name", ["rrelu", "alpha-dropout", "dice"])
def test_a_stateful_activation_trains_the_same_twice(name: str, tmp_path: Path) -> None:
    curves = []
    for out in ("a", "b"):
        torch.manual_seed(len(curves))  # what the caller drew before makes no difference
        state = torch.get_rng_state()
        study = netwright.Study(task(), ["default", name], seeds=2, trials=1, out=tmp_path / out)
        result = study.run()
        assert {record.engine for record in result.records} == {"loop"}
        assert torch.equal(torch.get_rng_state(), state)
        curves.append({record.key: record.curve for record in result.records})
    assert curves[0] == curves[1] and all(curves[0].values())


def test_why_it_is_not_stacked() -> None:
    study = netwright.Study("digits", ["relu", "rrelu", "recurrent-rational"], seeds=6, trials=1)
    reasons = [entrant.why_not_stackable(tuned=False) for entrant in study.entrants]
    assert reasons[0] == "" and "draws random numbers" in reasons[1] and "one module" in reasons[2]
