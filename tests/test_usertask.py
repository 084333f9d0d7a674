"""Tasks of a user's own: every bad input is named early, and what goes in decides what the bench runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import toys
from mine import INPUTS, ROWS, Net, good, loss, points, splits, task
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import netwright
from netwright.bench.entrant import enter, enter_all
from netwright.bench.plan import make_plan
from netwright.bench.request import ArmSpec, Terms, make_request, parse_arm, slots_of
from netwright.core.errors import BadInput, NetwrightError, UnknownName
from netwright.core.kind import LOSS, OPTIMIZER, SCHEDULE
from netwright.engine.task import Task


def check_refused(words: str, kind: type[NetwrightError] = BadInput, **changes: Any) -> None:
    """The task is refused before anything runs, and the message holds the words."""
    with pytest.raises(kind, match=words):
        task(**changes)


# A task that is right -------------------------------------------------------------------------------------------------


def test_a_task_says_what_it_was_given() -> None:
    made = task()
    assert (made.id, made.name, made.foreign, made.per_seed_data) == ("task/mine", "mine", True, False)
    assert (made.problem.input, made.problem.output, made.problem.classes) == ((INPUTS,), (1,), None)
    assert made.problem.gives == {"targets", "vector"}
    assert made.problem.metric_name == "error"
    assert made.evals[-1] == made.steps == 20
    assert made.lr == (1e-3, 1e-1, pytest.approx(1e-2))
    assert task(lr=(1e-3, 1e-1, 5e-2)).lr[2] == 5e-2
    assert {"rule", "activation"} <= set(slots_of(made)) and slots_of(task(slot=None)) == ("rule", LOSS, OPTIMIZER, SCHEDULE)
    data = made.data(3)
    assert [len(data.split(key)[0]) for key in ("train", "val", "test")] == [ROWS] * 3
    assert torch.equal(data.split("val")[0], points("val")[0])


def test_a_name_that_is_no_slug_becomes_one() -> None:
    made = netwright.task("My data, 2nd try/../", **good())
    assert made.name.replace("-", "").isalnum() and made.summary == "My data, 2nd try/../"


def test_a_task_trains_on_the_loop() -> None:
    made = task(steps=120)
    out = enter(made, ArmSpec("default")).train(0, {"lr": 1e-2})
    first, last = out.curve[0][2], out.curve[-1][2]
    assert last < 0.7 * first


def test_an_arm_is_swapped_in_at_the_slot() -> None:
    made = task()
    part = next(p for p in netwright.list("activation") if p.tags.shape == "elementwise" and not p.tags.smooth)
    default, arm = (enter(made, parse_arm(text, made)).build(0) for text in ("default", part.name))
    assert isinstance(default.net.body[1], nn.GELU)
    assert type(arm.net.body[1]) is getattr(netwright.activations, part.cls)  # type: ignore[attr-defined]
    assert torch.equal(default.net.body[0].weight, arm.net.body[0].weight), "the arms share their initial values"


def test_making_a_task_draws_nothing_from_the_global_generator() -> None:
    before = torch.random.get_rng_state()
    task()
    assert torch.equal(before, torch.random.get_rng_state())


# Arguments ------------------------------------------------------------------------------------------------------------

NEEDED = ["model", "train", "val", "test", "loss", "metric", "higher_is_better", "worst", "delta", "steps", "batch", "lr"]


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_argument_is_named(name: str) -> None:
    check_refused(rf"lacks {name}=; a task needs model=, loss=.* and test=", **{name: ...})


def test_all_missing_arguments_are_named_at_once() -> None:
    with pytest.raises(BadInput, match="lacks model=, loss=, metric=.*train=, val= and test="):
        netwright.task("mine")
    with pytest.raises(BadInput, match="name="):
        netwright.task(" ", **good())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": Net()}, "model is Net; expected a function that makes a fresh one"),
        ({"model": 3}, "model is int"),
        ({"loss": "squares"}, "loss='squares'; expected a function"),
        ({"metric": 0.5}, "metric=0.5; expected a function"),
        ({"augment": 1}, "augment=1; expected a function"),
        ({"higher_is_better": 1}, "higher_is_better=1; expected True or False"),
        ({"worst": math.inf}, "worst=inf; expected a finite number"),
        ({"worst": "bad"}, "worst='bad'"),
        ({"delta": 0}, "delta=0; expected .* above 0"),
        ({"steps": 0}, "steps=0; expected a whole number"),
        ({"steps": 10.5}, "steps=10.5"),
        ({"batch": True}, "batch=True"),
        ({"batch": ROWS + 1}, f"batch={ROWS + 1}, but train holds {ROWS}"),
        ({"evals": 0}, "evals=0"),
        ({"lr": 1e-3}, r"lr=0.001; expected \(lowest, highest\)"),
        ({"lr": (1e-1, 1e-3)}, "lr=.*expected 0 < lowest < highest"),
        ({"lr": (0.0, 1e-3)}, "lr=.*expected 0 < lowest < highest"),
        ({"lr": (1e-3, 1e-2, 1e-1)}, "lr=.*between them"),
        ({"lr": (1e-3, 1e-2, 5e-3, 1.0)}, "lr="),
        ({"lr": (1e-3, math.nan)}, "lr="),
        ({"lr": ("low", "high")}, "lr="),
        ({"weight_decay": -1.0}, "weight_decay=-1.0"),
        ({"weight_decay": (0.0, 0.1)}, "weight_decay=.*above 0 to be tuned"),
        ({"weight_decay": (0.1, 0.01)}, "weight_decay="),
        ({"weight_decay": ()}, "weight_decay="),
        ({"clip": 0}, "clip=0; expected a norm above 0"),
        ({"optimizer_options": {"momentun": 0.9}}, "optimizer .*momentun"),
        ({"optimizer_options": {"betas": 0.9}}, "optimizer .*betas=0.9; expected two numbers"),
        ({"version": 2}, "version=2; expected a text"),
        ({"slot": nn.Tanh}, "slot=.*Tanh"),
        ({"slot": "body.7"}, "slot='body.7'"),
    ],
    ids=str,
)
def test_a_bad_argument_is_named(changes: dict[str, Any], words: str) -> None:
    check_refused(words, **changes)


@pytest.mark.parametrize(("name", "near"), [(OPTIMIZER, toys.ADAPTIVE), (SCHEDULE, toys.FALLING)])
def test_an_unknown_name_suggests_near_ones(name: str, near: str) -> None:
    check_refused(f"no {name} is called '{near}x'; did you mean {near}", UnknownName, **{name: f"{near}x"})


# Functions, on the dry run --------------------------------------------------------------------------------------------


class Broken(Net):
    """A model whose forward is wrong in one of several ways."""

    def __init__(self, how: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Any:
        return self.how(self.body(x))


def fails(*ignored: Any) -> Any:
    raise RuntimeError("oh no")


ONE = Net()


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: 3, r"model\(\) returned int; expected an nn.Module"),
        (fails, r"model\(\) raised RuntimeError: oh no"),
        (lambda inputs: Net(inputs), r"model\(\) raised TypeError"),
        (lambda: ONE, "the same module twice"),
        (nn.Identity, "no parameter to train"),
        (lambda: Net(INPUTS + 1), rf"the model, given a batch x of shape \(16, {INPUTS}\) .* raised RuntimeError"),
        (lambda: Broken(lambda h: (h, h)), "returned tuple of 2; expected one tensor"),
        (lambda: Broken(lambda h: h[:5]), r"the model made \(5, 1\) of .*; expected 16 rows"),
        (lambda: Broken(lambda h: h.sum()), r"the model made \(\) of"),
        (lambda: Broken(lambda h: h / 0), "isn't finite"),
        (lambda: Broken(lambda h: h.detach()), "loss has no gradient"),
    ],
)
def test_a_broken_model_is_refused(model: Any, words: str) -> None:
    check_refused(words, model=model)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (fails, r"loss, given outputs \(16, 1\) in torch.float32 and y \(16, 1\) .*, raised RuntimeError: oh no"),
        (lambda out, y: (out - y).square().mean(1), r"loss, .*, returned Tensor of shape \(16,\); expected a scalar"),
        (lambda out, y: 0.5, "returned float; expected a scalar tensor"),
        (lambda out, y: loss(out, y).detach(), "loss has no gradient"),
        (lambda out, y: loss(out, y) + math.nan, "is nan on the untrained model"),
    ],
)
def test_a_broken_loss_is_refused(broken: Any, words: str) -> None:
    check_refused(words, loss=broken)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (fails, "metric, given validation outputs, raised RuntimeError: oh no"),
        (lambda out, y: math.nan, "metric is nan"),
        (lambda out, y: "good", "metric returned str; expected a float"),
        (lambda out, y: (out - y).abs(), r"metric returned Tensor of shape \(64, 1\); expected a float"),
    ],
)
def test_a_broken_metric_is_refused(broken: Any, words: str) -> None:
    check_refused(words, metric=broken)


def test_a_metric_may_be_a_scalar_tensor_or_numpys() -> None:
    assert task(metric=lambda out, y: (out - y).abs().mean()).problem.metric_name == "lambda"
    task(metric=lambda out, y: np.float32(0.5))


# Data -----------------------------------------------------------------------------------------------------------------


class Pairs(Dataset[Any]):
    """A Dataset of pairs; `bend` may spoil them."""

    def __init__(self, key: str, bend: Callable[[int, Any], Any] = lambda i, pair: pair) -> None:
        self.x, self.y = points(key)
        self.bend = bend

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        return self.bend(i, (self.x[i], self.y[i]))


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([points("train")])


class Endless(Dataset[Any]):
    def __getitem__(self, i: int) -> Any:
        return torch.zeros(INPUTS), torch.zeros(1)


def spoilt(value: float, row: int = 7, column: int = 2) -> tuple[Tensor, Tensor]:
    x, y = points("val")
    x[row, column] = value
    return x, y


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"val": spoilt(math.nan)}, r"val x, row 7, column 2 is nan \(1 such values\); clean the data"),
        ({"test": spoilt(-math.inf, 0, 3)}, "test x, row 0, column 3 is -inf"),
        ({"train": (points("train")[0], points("train")[1] * math.nan)}, "train y, row 0, column 0 is nan"),
        ({"val": (points("val")[0][:, :3], points("val")[1])}, rf"val x has examples of shape \(3,\) .* \({INPUTS},\)"),
        ({"test": (points("test")[0], points("test")[1][:, 0])}, r"test y has examples of shape \(\)"),
        ({"test": (points("test")[0].long(), points("test")[1])}, "test x has examples .* in torch.int64"),
        ({"val": (points("val")[0], points("val")[1][:-1])}, f"val has {ROWS} rows of x but {ROWS - 1} of y"),
        ({"val": points("val")[0]}, "val is Tensor of shape .*; expected a pair"),
        ({"val": (*points("val"), 1)}, "val is tuple of 3; expected a pair"),
        ({"val": "val.csv"}, "val is str; expected a pair"),
        ({"val": (["a", "b"], [1, 2])}, "val x is list of 2, which is no tensor"),
        ({"val": (3.0, 4.0)}, r"val x has shape \(\); expected examples along the first dimension"),
        ({"val": points("val", 0)}, r"val x has shape \(0, 4\)"),
        ({"val": DataLoader(TensorDataset(*points("val")))}, "val is a DataLoader; give its dataset"),
        ({"val": Stream()}, "val is an IterableDataset"),
        ({"val": Endless()}, "val is a Dataset that can't be read"),
        ({"val": Pairs("val", lambda i, pair: fails())}, "val is a Dataset that can't be read: RuntimeError: oh no"),
        ({"val": Pairs("val", lambda i, pair: pair[0])}, "val is a Dataset whose items aren't pairs"),
        ({"val": Pairs("val", lambda i, p: (p[0][: 1 + i % 2], p[1]))}, "val: its examples can't be stacked"),
        ({"data": lambda seed: splits()}, "data= stands instead of train=, val= and test="),
    ],
)
def test_bad_data_are_named_by_split_and_place(changes: dict[str, Any], words: str) -> None:
    check_refused(words, **changes)


def test_labels_beyond_the_outputs_are_named() -> None:
    labelled = {key: (x, torch.arange(ROWS) % 3) for key, (x, _) in splits().items()}
    settings = {"model": lambda: Net(outputs=3), "loss": nn.functional.cross_entropy, "metric": right}
    made = task(**labelled, **settings)
    assert made.problem.classes == 3 and made.problem.gives == {"labels", "vector"}
    assert made.problem.encode is not None and made.problem.encode(torch.tensor([2])).tolist() == [[0, 0, 1]]
    x, y = labelled["test"]
    check_refused("test y, row 5 is label 3, but the model has 3 outputs", **settings, **labelled | {"test": (x, at(y, 5, 3))})
    check_refused("test y, row 1 is label -1", **settings, **labelled | {"test": (x, at(y, 1, -1))})


def at(y: Tensor, row: int, label: int) -> Tensor:
    y = y.clone()
    y[row] = label
    return y


def right(out: Tensor, y: Tensor) -> float:
    return (out.argmax(-1) == y).float().mean().item()


def test_tensors_arrays_and_datasets_are_one_task() -> None:
    forms: list[Callable[[str], Any]] = [
        points,
        lambda key: [t.numpy() for t in points(key)],
        lambda key: TensorDataset(*points(key)),
        Pairs,
        lambda key: tuple(t.double() for t in points(key)),
        lambda key: tuple(t.double().numpy() for t in points(key)),
    ]
    made = [task(**{key: form(key) for key in ("train", "val", "test")}) for form in forms]
    assert len({t.data_hash() for t in made}) == 1
    assert {t.data(0).x.dtype for t in made} == {torch.float32}, "float64 becomes float32"
    assert not any(t.per_seed_data for t in made)


def test_the_task_keeps_no_gradient_of_the_users_data() -> None:
    x, y = points("train")
    assert not task(train=(x.requires_grad_(), y)).data(0).x.requires_grad


# Functions of the seed ------------------------------------------------------------------------------------------------


def drawn(seed: int) -> dict[str, Any]:
    return {key: points(key, seed=seed) for key in ("train", "val", "test")}


def by_seed(data: Any = drawn, **changes: Any) -> Task:
    return task(data=data, train=..., val=..., test=..., **changes)


def test_data_may_be_a_function_of_the_seed() -> None:
    made = by_seed()
    assert made.per_seed_data
    assert torch.equal(made.data(3).split("test")[0], points("test", seed=3)[0])
    assert torch.equal(made.data(3).x, made.data(3).x) and not torch.equal(made.data(3).x, made.data(4).x)
    tuples = by_seed(lambda seed: tuple(drawn(seed).values()))
    assert tuples.data_hash() == made.data_hash()


def test_one_split_may_be_a_function_of_the_seed() -> None:
    made = task(train=partial(points, "train", ROWS))
    assert made.per_seed_data
    assert not torch.equal(made.data(0).split("train")[0], made.data(1).split("train")[0])
    assert torch.equal(made.data(0).split("test")[0], made.data(1).split("test")[0])


def test_data_of_a_seed_run_on_the_loop_engine() -> None:
    """Copies of a stack would share the pool of the first seed, and what a user's model draws."""
    made = by_seed()
    for engine in ("auto", "stack"):
        request = make_request(made, "given:mine", {}, ["default"], Terms(seeds=4, trials=2, engine=engine))
        plan = make_plan(request, enter_all(made, request))
        assert set(plan.engines.values()) == {"loop"}
    assert any("function of the seed" in note for note in plan.notes)
    shared = make_request(task(), "given:mine", {}, ["default"], Terms(seeds=4, trials=2, engine="stack"))
    plan = make_plan(shared, enter_all(task(), shared))
    assert set(plan.engines.values()) == {"loop"} and any("share what it draws" in note for note in plan.notes)


_count = iter(range(1000))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (lambda seed: drawn(next(_count)), r"data\(0\) gave other data the second time"),
        (fails, r"data\(0\) raised RuntimeError: oh no"),
        (lambda: drawn(0), r"data\(0\) raised TypeError"),
        (lambda seed: 7, r"data\(0\) returned int; expected a dict"),
        (lambda seed: tuple(drawn(seed).values())[:2], r"data\(0\) returned tuple of 2"),
        (lambda seed: drawn(seed) | {"val": points("val", 0)}, "val x has shape"),
    ],
)
def test_a_broken_function_of_the_seed_is_named(data: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        by_seed(data)


def test_a_split_missing_from_what_data_returns_suggests_near_names() -> None:
    with pytest.raises(UnknownName, match=r"data\(0\) returned: no split is called 'test'.*tests"):
        by_seed(lambda seed: {"train": points("train"), "val": points("val"), "tests": points("test")})


def test_a_split_that_raises_is_named() -> None:
    check_refused(r"val\(0\) raised RuntimeError: oh no", val=fails)
