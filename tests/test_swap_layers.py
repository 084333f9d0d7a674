"""swap with layers and norms: sizes read off what stood there, widths solved for equal cost, refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.errors import BadInput, Misfit
from netwright.engine.blocks import count_parameters
from netwright.surgery.swap import swap


def some(kind: str = "layer", **tags: Any) -> Any:
    """A part by its tags, one that any sizes fit."""
    parts: list[Any] = list(catalogue.parts(kind))
    fits = [p for p in parts if all(getattr(p.tags, k) == v for k, v in tags.items())]
    for part in fits:
        try:
            with torch.device("meta"):
                part.build(*((7, 5, 3) if part.size_names.get("kernel_size", 1) is None else (7, 5))[: len(part.size_names)])
            return part
        except BadInput:
            continue
    raise AssertionError(f"no {kind} with {tags}")


def linear(nonlinear: bool = True) -> Any:
    return some(shape="linear", nonlinear=nonlinear, slot=None)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(12, 40), nn.ReLU(), nn.Dropout(0.2), nn.Linear(40, 40), nn.GELU(), nn.Linear(40, 3))


class Residual(nn.Module):
    """Two linear maps with a norm between them, and a branch that reads the first one too."""

    def __init__(self, branch: bool) -> None:
        super().__init__()
        self.up, self.down, self.branch = nn.Linear(12, 30), nn.Linear(30, 12), branch
        self.norm = nn.Identity() if branch else nn.LayerNorm(30)

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)
        y = x + self.down(self.norm(torch.relu(h)))
        return y + h.mean(-1, keepdim=True) if self.branch else y


def test_sizes_are_read_off_the_old_layers_and_all_can_be_undone() -> None:
    model, part, x = mlp(), linear(), torch.randn(4, 12)
    before, state = model.eval()(x), {k: v.clone() for k, v in model.state_dict().items()}
    report = swap(model, nn.Linear, part, example=x)
    assert [(m.sizes["d_in"], m.sizes["d_out"]) for m in model if isinstance(m, part.cls)] == [(12, 40), (40, 40), (40, 3)]
    assert report.replaced_parameters == sum(v.numel() for v in state.values()) != report.added_parameters
    assert "parameters where" in str(report) and '"replaced_parameters"' in report.to_json()
    assert "1, which follows, stays" in str(report)
    assert not torch.equal(model(x), before)
    report.restore(model)
    assert torch.equal(model(x), before)


def test_a_layer_is_found_again_by_its_name_and_class() -> None:
    part, other = linear(), linear(nonlinear=False)
    for what in (part.name, part.id, part.cls, part):
        model = mlp()
        swap(model, nn.Linear, part)
        swap(model, what, other)
        assert [m.sizes["d_out"] for m in model if isinstance(m, other.cls)] == [40, 40, 3]


@pytest.mark.parametrize("match", ["params", "flops"])
def test_free_widths_are_solved_until_the_cost_is_equal(match: str) -> None:
    model, part = mlp(), linear()
    was = count_parameters(model)
    report = swap(model, nn.Linear, part, match=match, example=torch.randn(4, 12))
    made = [m for m in model if isinstance(m, part.cls)]
    assert made[0].sizes["d_in"] == 12 and made[-1].sizes["d_out"] == 3
    assert all(a.sizes["d_out"] == b.sizes["d_in"] for a, b in zip(made, made[1:], strict=False))
    if match == "params":
        assert abs(count_parameters(model) / was - 1) < 0.05 and "widths 40-40 -> " in str(report)
    else:
        cost = 0.0
        for m in made:
            x, y = torch.zeros(1, m.sizes["d_in"]), torch.zeros(1, m.sizes["d_out"])
            cost += sum(part.cost(m, what, x, y) for what in ("products", "elementwise"))
        assert abs(cost / (2 * (12 * 40 + 40 * 40 + 40 * 3)) - 1) < 0.05
    assert model(torch.randn(4, 12)).shape == (4, 3)


def test_widths_that_others_see_are_not_free() -> None:
    for branch in (False, True):
        model = nn.Sequential(Residual(branch), Residual(branch))
        with pytest.raises(Misfit, match="no width is free"):
            swap(model, nn.Linear, linear(), match="params")
        assert type(model[0].up) is nn.Linear
    shared = nn.Linear(12, 12)
    with pytest.raises(Misfit, match="no width is free"):
        swap(nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(12, 3)), nn.Linear, linear(), match="params")


def test_match_is_for_linear_maps_and_known_words() -> None:
    with pytest.raises(BadInput, match="match='time'"):
        swap(mlp(), nn.Linear, linear(), match="time")
    with pytest.raises(Misfit, match="take the place of linear maps"):
        swap(mlp(), nn.ReLU, nn.SiLU, match="params")


def test_convolutions_keep_their_geometry() -> None:
    part = some(shape="conv")
    model = nn.Sequential(nn.Conv2d(3, 3, 3, stride=2, padding="valid"), nn.Conv2d(3, 3, (3, 1), padding="same"))
    x = torch.randn(2, 3, 9, 9)
    before = model(x).shape
    swap(model, nn.Conv2d, part, example=x)
    assert model(x).shape == before and model[1].sizes["padding"] == (1, 0)
    assert (model[0].sizes["stride"], model[0].sizes["kernel_size"]) == (2, 3)
    for odd, word in ((nn.Conv2d(4, 4, 3, groups=2), "groups=2"), (nn.Conv2d(4, 4, 3, padding_mode="reflect"), "padding_mode")):
        with pytest.raises(Misfit, match=word):
            swap(nn.Sequential(odd), nn.Conv2d, part)
    with pytest.raises(Misfit, match="convolutions"):
        swap(mlp(), nn.Linear, part)


def test_norms_keep_their_channels() -> None:
    part = next(p for p in catalogue.parts("norm") if not p.tags.batchwise)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Flatten(2), nn.LayerNorm(9), nn.GroupNorm(2, 6))
    swap(model, (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm), part, example=torch.randn(2, 3, 5, 5))
    assert [m.sizes for m in model if isinstance(m, part.cls)] == [
        {"channels": 6, "channel_dim": 1},
        {"channels": 9, "channel_dim": -1},
        {"channels": 6, "channel_dim": 1},
    ]
    with pytest.raises(Misfit, match="norms over one dimension"):
        swap(nn.Sequential(nn.LayerNorm((2, 3))), nn.LayerNorm, part)


def test_the_seed_and_the_path_decide_what_is_drawn() -> None:
    def drawn(seed: int) -> list[Tensor]:
        model = mlp()
        swap(model, nn.Linear, linear(), seed=seed)
        return [p.detach().clone() for p in model.parameters()]

    rng = torch.get_rng_state()
    with torch.random.fork_rng():
        a, b, c = drawn(0), drawn(0), drawn(1)
    assert torch.equal(rng, torch.get_rng_state())
    assert all(map(torch.equal, a, b)) and not all(map(torch.equal, a, c))
    first, second = (next(p for p in a if p.dim() > 1), [p for p in a if p.dim() > 1][-1])
    assert first.shape != second.shape or not torch.equal(first, second)


def test_channelwise_layers_take_the_channels_that_are_known() -> None:
    part = some(shape="channelwise")
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Identity())
    swap(model, nn.Identity, part, example=torch.randn(2, 3, 5, 5))
    assert model[1].sizes["channels"] == 64
