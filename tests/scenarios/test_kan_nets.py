"""Nets of functions on edges as their users work with them: finer grids, penalties, pruning, pictures, formulas."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.errors import BadInput, Misfit, NetwrightError
from netwright.tensor.saving import load, save
from netwright.waiting.edges import (
    curves,
    edge_layers,
    inputs_of,
    narrow,
    plot,
    prune,
    refine,
    regularisation,
    scales,
    update_grids,
)
from netwright.waiting.explain import eigenvectors, explain
from netwright.waiting.symbolic import LIBRARY, Formula, fit_edge, fits_of, symbolic


def net(*widths: int, seed: int = 0, **options: Any) -> nn.Sequential:
    g = torch.Generator().manual_seed(seed)
    layers = []
    for d_in, d_out in zip(widths, widths[1:], strict=False):
        layer = catalogue.make("kan", d_in, d_out, **{"noise": 1.0, **options})
        layer.reset_parameters(g)
        layers.append(layer)
    return nn.Sequential(*layers)


def inside(n: int, d: int, seed: int = 1) -> Tensor:
    return 2 * torch.rand(n, d, generator=torch.Generator().manual_seed(seed)) - 1


# Grids ----------------------------------------------------------------------------------------------------------------


def test_a_net_extends_its_grids_from_5_to_50_and_stays_the_function_it_was() -> None:
    kan, x = net(2, 5, 1), inside(200, 2)
    update_grids(kan, x, eps=1.0)
    before = kan(x).detach()
    for grid in (10, 20, 50):
        changes = refine(kan, grid)
        assert set(changes) == {"0", "1"}
        assert max(changes.values()) < 1e-5
        assert bool(kan(x).isfinite().all())
        assert float((kan(x) - before).detach().abs().max()) < 1e-4
        assert [layer.grid for layer in kan] == [grid, grid]
    loss = kan(x).square().mean()
    loss.backward()
    assert all(bool(p.grad.isfinite().all()) for p in kan.parameters())


def test_an_optimizer_outlives_a_grid_update_of_the_same_size() -> None:
    kan, x = net(2, 3, 1), inside(100, 2)
    own = list(kan.parameters())
    update_grids(kan, x)
    assert all(a is b for a, b in zip(own, kan.parameters(), strict=True))


def test_grids_of_every_layer_move_to_what_it_sees() -> None:
    kan, x = net(3, 4, 2), 3 + 2 * inside(500, 3)
    assert float(kan[0].features(x).abs().sum()) < float(kan[0].features(inside(500, 3)).abs().sum()) / 4  # beside its grid
    changes = update_grids(kan, x, eps=0.5)
    assert set(changes) == {"0", "1"}
    for _, layer, rows in inputs_of(kan, x):
        lo, hi = layer.knots[layer.order], layer.knots[-layer.order - 1]
        if layer is kan[0]:
            assert bool((rows.amin(0) >= lo).all() and (rows.amax(0) <= hi).all())
        assert not layer.uniform


def test_grids_of_convolutions_move_too() -> None:
    kan = nn.Sequential(catalogue.make("conv-kan", 1, 2, 3), nn.Flatten(), catalogue.make("kan", 2 * 4 * 4, 3))
    x = 5 * torch.rand(30, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    assert set(update_grids(kan, x)) == {"0", "2"}
    assert float(kan[0].knots[kan[0].order, 0]) == pytest.approx(0.0, abs=0.1)
    assert float(kan[0].knots[-kan[0].order - 1, 0]) == pytest.approx(5.0, abs=0.2)
    update_grids(kan, x, eps=1.0)
    before = kan(x).detach()
    assert set(refine(kan, 20)) == {"0", "2"}
    assert torch.allclose(kan(x), before, atol=1e-4)


@pytest.mark.parametrize("x", [torch.full((4, 2), 0.3), inside(1, 2).repeat(2, 1), torch.tensor([[0.3, -0.5], [0.3, 0.5]])])
def test_grids_survive_inputs_that_hardly_vary(x: Tensor) -> None:
    kan = net(2, 3, 1)
    update_grids(kan, x)
    assert bool(kan(inside(50, 2)).isfinite().all())
    refine(kan, 20)
    assert bool(kan(inside(50, 2)).isfinite().all())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda k, x: k.update_grid(x[:1]), "at least two rows"),
        (lambda k, x: k.update_grid(x * math.nan), "finite"),
        (lambda k, x: k.update_grid(x[:, :1]), "2"),
        (lambda k, x: k.update_grid(x, eps=1.5), "eps=1.5"),
        (lambda k, x: k.refine(0), "grid=0"),
        (lambda k, x: k.keep(torch.ones(3, 2)), "torch.bool"),
    ],
)
def test_a_wrong_grid_or_mask_changes_nothing(wrong: Any, words: str) -> None:
    kan, x = net(2, 3)[0], inside(9, 2)
    before = copy.deepcopy(kan.state_dict())
    with pytest.raises(NetwrightError, match=words):
        wrong(kan, x)
    assert all(torch.equal(v, before[k]) for k, v in kan.state_dict().items())


# Penalty and pruning --------------------------------------------------------------------------------------------------


def test_the_penalty_is_the_sum_and_the_entropy_of_mean_sizes() -> None:
    kan, x = net(2, 3, 1), inside(40, 2)
    want = torch.zeros(())
    rows = x
    for layer in kan:
        size = torch.stack(
            [
                torch.stack([layer.edges(rows)[:, o, i].abs().mean() for i in range(layer.sizes["d_in"])])
                for o in range(layer.sizes["d_out"])
            ]
        )
        share = size / size.sum()
        want = want + 2 * size.sum() - 3 * (share * share.log()).sum()
        rows = layer(rows)
    got = regularisation(kan, x, l1=2.0, entropy=3.0)
    assert torch.allclose(got, want)
    got.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in kan.parameters())
    assert bool(regularisation(prunable(), x).isfinite())  # edges that are 0 have no logarithm


def prunable() -> nn.Sequential:
    """2 inputs, 4 nodes, 1 output: nothing enters or leaves node 1, nothing leaves node 3."""
    kan = net(2, 4, 1)
    with torch.no_grad():
        for weight in (kan[0].coef, kan[0].base_weight):
            weight[1] = 0
        for weight in (kan[1].coef, kan[1].base_weight):
            weight[..., [1, 3]] = 0
    return kan


def test_pruning_takes_out_what_carries_nothing_and_narrowing_the_nodes(tmp_path: Path) -> None:
    kan, x = prunable(), inside(64, 2)
    before = kan(x).detach()
    assert set(prune(kan, x, threshold=1e-6).items()) == {("0", 4), ("1", 2)}
    assert torch.allclose(kan(x), before, atol=1e-6)
    assert narrow(kan) == [2, 1]
    assert [tuple(layer.coef.shape) for layer in kan] == [(2, 8, 2), (1, 8, 2)]
    assert torch.allclose(kan(x), before, atol=1e-6)
    refine(kan, 12)
    save(kan, tmp_path / "pruned.safetensors")
    again = net(2, 4, 1, seed=5)
    load(again, tmp_path / "pruned.safetensors")
    assert torch.equal(again(x), kan(x))
    assert torch.equal(copy.deepcopy(kan)(x), kan(x))


def test_pruned_edges_stay_pruned_in_training() -> None:
    kan, x = prunable(), inside(64, 2)
    prune(kan, x, threshold=1e-6)
    optimizer = torch.optim.SGD(kan.parameters(), 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (kan(x) - 1).square().mean().backward()
        optimizer.step()
    assert float(scales(kan, x)["0"][1].detach().abs().max()) == 0.0


def test_a_threshold_that_leaves_nothing_is_refused_whole() -> None:
    kan, x = net(2, 3, 1), inside(32, 2)
    with pytest.raises(BadInput, match="leaves no edge"):
        prune(kan, x, threshold=1e6)
    with pytest.raises(BadInput, match="threshold=-1"):
        prune(kan, x, threshold=-1.0)
    assert all(bool(layer.mask.all()) for layer in kan)
    with pytest.raises(BadInput, match="can't be pruned"):
        prune(nn.Sequential(catalogue.make("chebyshev-kan", 2, 2)), x)
    with pytest.raises(BadInput, match="holds no layer with edges"):
        edge_layers(nn.Linear(2, 2))


# Pictures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kan", "fast-kan", "chebyshev-kan", "relu-kan"])
def test_curves_are_the_functions_on_the_edges(name: str) -> None:
    layer = catalogue.make(name, 3, 2, **({"norm": False} if name == "fast-kan" else {}))
    rows, phi = curves(layer, points=11)
    assert rows.shape == (11, 3)
    assert phi.shape == (11, 2, 3)
    whole = layer(rows) if layer.bias is None else layer(rows) - layer.bias
    assert torch.allclose(phi.sum(2), whole, atol=1e-5)


def test_plot_draws_a_panel_an_edge_and_the_largest_of_many() -> None:
    pytest.importorskip("matplotlib")
    kan = net(2, 3, 1)
    assert len(plot(kan).axes) == 2 * 3 + 3
    assert len(plot(kan[0], inside(20, 2)).axes) == 6
    wide = net(20, 20)
    with torch.no_grad():
        wide[0].coef[7, :, 11] *= 100
    figure = plot(wide, most=12)
    assert len(figure.axes) == 12
    assert figure.axes[0].get_title() == "11 to 7"
    with pytest.raises(BadInput, match="sees the other inputs"):
        plot(catalogue.make("fast-kan", 2, 2))


# Formulas -------------------------------------------------------------------------------------------------------------

SHAPES = {
    "x^2": lambda x: 2 * (x - 0.3) ** 2 + 1,
    "sin": lambda x: -torch.sin(3 * x + 0.5),
    "exp": lambda x: 0.5 * torch.exp(-2 * x),
    "x": lambda x: 3 * x - 1,
    "tanh": lambda x: torch.tanh(4 * x),
    "log": lambda x: torch.log(x + 1.5),
    "1/x": lambda x: 1 / (x + 2),
    "sqrt": lambda x: torch.sqrt(x + 1.2),
    "0": lambda x: torch.full_like(x, 0.7),
    "abs": lambda x: (x - 0.2).abs(),
    "gaussian": lambda x: torch.exp(-((3 * x) ** 2)),
}


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_an_edge_is_recognised(name: str) -> None:
    x = torch.linspace(-1, 1, 150, dtype=torch.float64)
    fit = fit_edge(x, SHAPES[name](x))
    assert fit.name == name
    drawn = fit.c * LIBRARY[name].f(fit.a * x + fit.b) + fit.d
    assert float((drawn - SHAPES[name](x)).abs().max()) < 5e-3


def test_fits_come_best_first_and_wrong_samples_are_refused() -> None:
    x = torch.linspace(-1, 1, 50)
    r2 = [fit.r2 for fit in fits_of(x, torch.sin(2 * x))]
    assert r2 == sorted(r2, reverse=True)
    assert r2[0] > 0.999999
    with pytest.raises(NetwrightError, match="did you mean"):
        fit_edge(x, x, ["sine", "x"])
    for y in (x[:-1], x * math.nan, x[:, None]):
        with pytest.raises(BadInput, match="samples of shapes"):
            fit_edge(x, y)


def test_a_formula_prints_what_it_computes() -> None:
    sympy = pytest.importorskip("sympy")
    kan, x = net(2, 2, 1, noise=0.5), inside(100, 2)
    formula = symbolic(kan, x, library=["x", "x^2", "sin", "exp", "x^3"])
    (expression,) = formula.expressions(["u", "v"], digits=12)
    u, v = sympy.symbols("u v")
    call = sympy.lambdify((u, v), expression, "math")
    got = torch.tensor([call(*row) for row in x.double().tolist()], dtype=torch.float64)
    assert torch.allclose(got, formula(x)[:, 0].detach(), atol=1e-6)
    assert formula.error == pytest.approx(formula.measure(x, kan(x)), rel=1e-6)
    assert f"relative error {formula.error:.2g}" in str(formula)
    with pytest.raises(BadInput, match="expected 2"):
        formula.expressions(["u"])
    before = formula.error
    assert formula.refit(x, kan(x).detach(), steps=5) <= before


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: nn.Sequential(*net(2, 3), nn.ReLU(), *net(3, 1)), "ReLU"),
        (lambda: nn.Sequential(catalogue.make("fast-kan", 2, 1)), "single inputs"),
    ],
)
def test_what_is_no_sum_of_functions_has_no_formula(wrong: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        symbolic(wrong(), inside(20, 2))


@pytest.mark.parametrize("name", ["chebyshev-kan", "hermite-kan", "s-kan", "wavelet-kan"])
def test_other_layers_of_functions_are_read_but_not_pruned(name: str) -> None:
    """One layer, whose output is then a sum of the functions it is made of; a mask of its own is no mask of edges."""
    layer, x = catalogue.make(name, 3, 2).double(), inside(60, 3).double()
    layer.reset_parameters(torch.Generator().manual_seed(0))
    formula = symbolic(nn.Sequential(layer), x, library=["x^3", "sin"])
    assert [sorted(edges) for edges in formula.layers] == [[(o, i) for o in range(2) for i in range(3)]]
    assert formula.error < 1
    with pytest.raises(BadInput, match="can't be pruned; nothing was changed"):
        prune(nn.Sequential(layer), x)


def test_the_formula_of_exp_sin_and_a_square_is_found_from_data() -> None:
    """The KAN paper's example, from samples to the formula."""
    pytest.importorskip("sympy")
    x = inside(1000, 2, seed=0)
    y = torch.exp(torch.sin(math.pi * x[:, :1]) + x[:, 1:] ** 2)
    kan = net(2, 5, 1, noise=0.1, seed=0)

    def lbfgs(steps: int) -> None:
        optimizer = torch.optim.LBFGS(kan.parameters(), max_iter=steps, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = (kan(x) - y).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)

    lbfgs(20)
    update_grids(kan, x, eps=1.0)
    optimizer = torch.optim.Adam(kan.parameters(), 0.02)
    for step in range(800):
        optimizer.zero_grad()
        ((kan(x) - y).square().mean() + 0.03 * regularisation(kan, x)).backward()
        optimizer.step()
        if step in (200, 500):
            update_grids(kan, x, eps=1.0)
    prune(kan, x, threshold=3e-2)
    assert narrow(kan) == [1, 1]
    update_grids(kan, x, eps=1.0)
    lbfgs(100)
    formula = symbolic(kan, x)
    assert formula.refit(x, y) < 1e-5
    assert str(formula.expressions()[0]).replace(" ", "") == "exp(x2**2+sin(3.142*x1))"


# Eigenvectors ---------------------------------------------------------------------------------------------------------


def test_eigenvectors_add_up_to_the_outputs() -> None:
    layer = catalogue.make("bilinear-mlp", 6, 3)
    x = inside(20, 6).double()
    layer.double()
    out = layer(x)
    for o, (values, vectors) in enumerate(eigenvectors(layer, most=6)):
        assert vectors.shape == (6, 6)
        assert values.abs().tolist() == sorted(values.abs().tolist(), reverse=True)
        assert torch.allclose((values * (x @ vectors.T.to(x)) ** 2).sum(1), out[:, o], atol=1e-8)


def test_eigenvectors_pass_through_maps_before_and_after() -> None:
    g = torch.Generator().manual_seed(0)
    layer = catalogue.make("bilinear-mlp", 4, 3).double()
    embed, readout = (torch.randn(*s, generator=g, dtype=torch.float64) for s in ((4, 9), (2, 3)))
    x = torch.randn(20, 9, generator=g, dtype=torch.float64)
    out = layer(x @ embed.T) @ readout.T
    found = eigenvectors(layer, embed=embed, readout=readout, most=9)
    assert len(found) == 2
    for o, (values, vectors) in enumerate(found):
        assert torch.allclose((values * (x @ vectors.T) ** 2).sum(1), out[:, o], atol=1e-8)


def test_explain_draws_a_row_an_output_and_refuses_what_does_not_fit() -> None:
    pytest.importorskip("matplotlib")
    layer = catalogue.make("bilinear-mlp", 12, 3)
    figure = explain(layer, shape=(3, 4), outputs=[0, 2], labels=["zero", "two"], most=3)
    assert len(figure.axes) == 6
    assert [axes.get_ylabel() for axes in figure.axes] == ["zero", "", "", "two", "", ""]
    for given, words in (
        ({"shape": (3, 3)}, "holds 9 values; the inputs are 12"),
        ({"shape": (3, 4), "outputs": [3]}, "outputs=\\[3\\]"),
        ({"shape": (3, 4), "labels": ["a"]}, "1 labels for 3"),
        ({"shape": (3, 4), "most": 0}, "most=0"),
        ({"shape": (3, 4), "embed": torch.zeros(5, 12)}, "embed has shape"),
        ({"shape": (3, 4), "readout": torch.zeros(5, 12)}, "readout has shape"),
    ):
        with pytest.raises(BadInput, match=words):
            explain(layer, **given)  # type: ignore[arg-type]
    with pytest.raises(Misfit, match="no eigenvectors"):
        explain(nn.Linear(12, 3), shape=(3, 4))


def test_a_formula_is_a_module_of_its_own() -> None:
    fit = fit_edge(torch.linspace(-1, 1, 20), torch.linspace(-1, 1, 20) ** 2)
    formula = Formula([{(0, 0): fit}], (2, 1))
    assert formula(torch.tensor([[0.5, 9.0], [-0.5, 7.0]])).tolist() == [[pytest.approx(0.25)], [pytest.approx(0.25)]]
