"""Checkpoints: what is saved comes back, and nothing else is opened."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.tensor.saving import load, save


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)
        self.b.weight = self.a.weight
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.b(torch.tanh(self.a(x))))


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, n: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    for _ in range(n):
        loss = model(torch.randn(8, 4, generator=g)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def fresh() -> tuple[nn.Module, torch.optim.Optimizer]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Tied()
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def test_a_restored_training_continues_on_the_same_trajectory(tmp_path: Path) -> None:
    model, optimizer = fresh()
    steps(model, optimizer, 5, seed=1)
    save(model, tmp_path / "c.safetensors", optimizer=optimizer, extra={"step": 5})
    wanted = steps(model, optimizer, 5, seed=2)
    again, other = fresh()
    assert load(again, tmp_path / "c.safetensors", optimizer=other) == {"step": 5}
    assert torch.equal(steps(again, other, 5, seed=2), wanted)
    assert again.b.weight is again.a.weight  # type: ignore[union-attr]


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    from safetensors import safe_open

    model, _ = fresh()
    save(model, tmp_path / "c.safetensors")
    with safe_open(str(tmp_path / "c.safetensors"), framework="pt") as file:
        assert "a.weight" in file.keys() and "b.weight" not in file.keys()  # noqa: SIM118


class Bomb:
    def __reduce__(self) -> Any:
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_a_pickle_is_never_opened(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(BadInput, match="safetensors"):
        load(fresh()[0], tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_bad_files_leave_the_model_as_it_was(tmp_path: Path) -> None:
    model, _ = fresh()
    path = save(nn.Linear(2, 2), tmp_path / "other.safetensors")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(BadInput, match="another model"):
        load(model, path)
    whole = save(model, tmp_path / "c.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="not a whole safetensors file"):
        load(model, tmp_path / "cut.safetensors")
    with pytest.raises(BadInput, match="no file"):
        load(model, tmp_path / "none.safetensors")
    with pytest.raises(BadInput, match="no optimizer state"):
        load(model, tmp_path / "c.safetensors", optimizer=fresh()[1])
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_extra_has_to_be_plain(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="plain JSON"):
        save(nn.Linear(2, 2), tmp_path / "c.safetensors", extra={"x": object()})
    assert not list(tmp_path.iterdir())
