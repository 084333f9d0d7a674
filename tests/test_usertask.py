"""Tasks of a user's own: every bad input is named early, and what goes in decides what the bench runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import netwright
from netwright.kinds.task import Task
from netwright.part import BadInput, NetwrightError, UnknownName
from netwright.streams import generator
from netwright.study.plan import make_plan, runs_of
from netwright.study.spec import make_request, open_task
from netwright.study.work import build_rule, data_of
from netwright.train import Setting, train
from netwright.usertask import load_file

INPUTS, ROWS = 4, 64


class Net(nn.Module):
    """A user's model, with an activation to swap."""

    def __init__(self, inputs: int = INPUTS, outputs: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, 8), nn.GELU(), nn.Linear(8, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def points(name: str, rows: int = ROWS, seed: int = 0) -> tuple[Tensor, Tensor]:
    x = torch.randn(rows, INPUTS, generator=generator(seed, "draw", name))
    return x, x[:, :1].sin()


def loss(out: Tensor, y: Tensor) -> Tensor:
    return (out - y).square().mean()


def error(out: Tensor, y: Tensor) -> float:
    return (out - y).abs().mean().item()


def splits() -> dict[str, Any]:
    return {key: points(key) for key in ("train", "val", "test")}


def good(**changes: Any) -> dict[str, Any]:
    """Arguments of a task that is right, with changes; a change to `...` leaves the argument out."""
    arguments = {
        "model": Net,
        **splits(),
        "loss": loss,
        "metric": error,
        "higher_is_better": False,
        "worst": 1.0,
        "delta": 0.01,
        "steps": 20,
        "batch": 16,
        "lr": (1e-3, 1e-1),
        "slot": nn.GELU,
    }
    return {key: value for key, value in (arguments | changes).items() if value is not ...}


def task(**changes: Any) -> Task:
    return netwright.task("mine", **good(**changes))


def refused(words: str, kind: type[NetwrightError] = BadInput, **changes: Any) -> None:
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
    assert all(rates == (1e-3, 1e-1, pytest.approx(1e-2)) for rates in made.lr.values())
    assert task(lr=(1e-3, 1e-1, 5e-2)).lr["backprop"][2] == 5e-2
    assert set(made.slots) == {"rule", "activation"} and set(task(slot=None).slots) == {"rule"}
    data = made.data(3)
    assert [len(data.split(key)[0]) for key in ("train", "val", "test")] == [ROWS] * 3
    assert torch.equal(data.split("val")[0], points("val")[0])


def test_a_name_that_is_no_slug_becomes_one() -> None:
    made = netwright.task("My data, 2nd try/../", **good())
    assert made.name.replace("-", "").isalnum() and made.summary == "My data, 2nd try/../"


def test_a_task_trains_on_the_loop() -> None:
    made = task(steps=120)
    request = make_request(made, "given:mine", {}, ["default"], seeds=1, trials=1)
    rule = build_rule(made, request.arms[0], 0, ())
    out = train(rule, data_of(made, 0, "cpu"), Setting.of(made, 0, {"lr": 1e-2}))
    first, last = out.curve[0][2], out.curve[-1][2]
    assert last < 0.7 * first


def test_an_arm_is_swapped_in_at_the_slot() -> None:
    made = task()
    part = next(p for p in netwright.list("activation") if p.tags.shape == "elementwise" and not p.tags.smooth)
    request = make_request(made, "given:mine", {}, ["default", part.name], seeds=1, trials=1)
    default, arm = (build_rule(made, a, 0, ()) for a in request.arms)
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
    refused(rf"lacks {name}=; a task needs model=, loss=.* and test=", **{name: ...})


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
        ({"loss": "mse"}, "loss='mse'; expected a function"),
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
        ({"optimizer_options": {"momentun": 0.9}}, "optimizer 'adam'.*momentun"),
        ({"optimizer_options": {"betas": 0.9}}, "optimizer 'adam'"),
        ({"version": 2}, "version=2; expected a text"),
        ({"slot": nn.Tanh}, "slot=.*Tanh"),
        ({"slot": "body.7"}, "slot='body.7'"),
    ],
    ids=str,
)
def test_a_bad_argument_is_named(changes: dict[str, Any], words: str) -> None:
    refused(words, **changes)


@pytest.mark.parametrize(("name", "value", "near"), [("optimizer", "adamm", "adam"), ("schedule", "cosin", "cosine")])
def test_an_unknown_name_suggests_near_ones(name: str, value: str, near: str) -> None:
    refused(f"no {name} is called '{value}'; did you mean {near}", UnknownName, **{name: value})


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
    refused(words, model=model)


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
    refused(words, loss=broken)


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
    refused(words, metric=broken)


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
    refused(words, **changes)


def test_labels_beyond_the_outputs_are_named() -> None:
    labelled = {key: (x, torch.arange(ROWS) % 3) for key, (x, _) in splits().items()}
    settings = {"model": lambda: Net(outputs=3), "loss": nn.functional.cross_entropy, "metric": right}
    made = task(**labelled, **settings)
    assert made.problem.classes == 3 and made.problem.gives == {"labels", "vector"}
    assert made.problem.encode is not None and made.problem.encode(torch.tensor([2])).tolist() == [[0, 0, 1]]
    x, y = labelled["test"]
    refused("test y, row 5 is label 3, but the model has 3 outputs", **settings, **labelled | {"test": (x, at(y, 5, 3))})
    refused("test y, row 1 is label -1", **settings, **labelled | {"test": (x, at(y, 1, -1))})


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
    """Copies of a stack would share the pool of the first seed."""
    made = by_seed()
    for engine in ("auto", "stack"):
        request = make_request(made, "given:mine", {}, ["default"], seeds=4, trials=2, engine=engine)
        plan = make_plan(request, made)
        assert set(plan.engines.values()) == {"loop"}
    assert any("function of the seed" in note for note in plan.notes)
    shared = make_request(task(), "given:mine", {}, ["default"], seeds=4, trials=2, engine="stack")
    assert set(make_plan(shared, task()).engines.values()) == {"stack"}, "a task of one pool can be stacked"


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
    refused(r"val\(0\) raised RuntimeError: oh no", val=fails)


# Identity -------------------------------------------------------------------------------------------------------------


def keys(made: Task) -> set[str]:
    request = make_request(made, "given:mine", {}, ["default"], seeds=2, trials=1)
    return {run.key for run in runs_of(request, made, make_plan(request, made))}


def absolute(out: Tensor, y: Tensor, power: float = 1.0, scale: float = 1.0) -> Tensor:
    return scale * (out - y).abs().pow(power).mean()


def test_the_same_task_has_the_same_keys() -> None:
    assert keys(task()) == keys(task()) and len(keys(task())) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"train": points("other")},
        {"model": lambda: nn.Sequential(Net(), nn.Linear(1, 1))},
        {"loss": absolute},
        {"loss": partial(absolute, power=2.0)},
        {"higher_is_better": True},
        {"steps": 21},
        {"batch": 8},
        {"evals": 5},
        {"optimizer": "sgd"},
        {"optimizer_options": {"betas": (0.5, 0.9)}},
        {"schedule": "cosine"},
        {"weight_decay": 0.1},
        {"clip": 1.0},
        {"version": "2"},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_whatever_changes_a_result_changes_the_keys(changes: dict[str, Any]) -> None:
    assert not keys(task(**changes)) & keys(task())


def test_where_a_split_ends_is_part_of_the_identity() -> None:
    """The pool is the same; what is trained on isn't."""
    x, y = points("all", 100)
    one, other = (task(train=(x[:n], y[:n]), val=(x[n:90], y[n:90]), test=(x[90:], y[90:])) for n in (60, 70))
    assert one.data_hash() == other.data_hash()
    assert not keys(one) & keys(other)


def test_arguments_bound_to_a_function_are_part_of_the_identity() -> None:
    assert not keys(task(loss=partial(absolute, scale=1.0))) & keys(task(loss=partial(absolute, scale=2.0)))
    assert keys(task(loss=partial(absolute, scale=2.0))) == keys(task(loss=partial(absolute, scale=2.0)))


def test_what_is_only_said_of_the_scores_keeps_the_keys() -> None:
    assert keys(task(delta=0.5, worst=9.0, metric_name="error of mine")) == keys(task())


# Files ----------------------------------------------------------------------------------------------------------------

FILE = '''"""A task of mine."""
import torch
from torch import nn
import netwright

def points(seed):
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :1]

def loss(out, y):
    return (out - y).square().mean()

def metric(out, y):
    return loss(out, y).item()

MINE = netwright.task("mine", model=lambda: nn.Linear(3, 1), train=points(0), val=points(1), test=points(2), loss=loss,
                      metric=metric, higher_is_better=False, worst=1.0, delta=0.01, steps=10, batch=8, lr=(1e-3, 1e-1))
'''


def written(folder: Path, source: str = FILE) -> str:
    path = folder / "mine.py"
    path.write_text(source, encoding="utf-8")
    return str(path)


def test_a_file_holds_a_task(tmp_path: Path) -> None:
    path = written(tmp_path)
    made = load_file(f"{path}:MINE")
    assert isinstance(made, Task) and made.id == "task/mine"
    assert load_file(path).source_hash == made.source_hash, "the only task needs no name"
    assert open_task(f"{path}:MINE", {}).data_hash() == made.data_hash()


def test_the_files_source_is_part_of_the_keys(tmp_path: Path) -> None:
    before = keys(load_file(f"{written(tmp_path)}:MINE"))
    assert keys(load_file(f"{written(tmp_path, FILE)}:MINE")) == before
    commented = FILE.replace("def loss", "# what is lost\ndef loss").replace("A task of mine.", "Mine.")
    assert keys(load_file(f"{written(tmp_path, commented)}:MINE")) == before, "comments change no result"
    edited = FILE.replace(".square()", ".abs()")
    assert not keys(load_file(f"{written(tmp_path, edited)}:MINE")) & before


def test_a_file_is_run_once_a_text(tmp_path: Path) -> None:
    count = f"open({str(tmp_path / 'count')!r}, 'a').write('x')\n"
    path = written(tmp_path, FILE + count)
    for _ in range(3):
        load_file(f"{path}:MINE")
    assert (tmp_path / "count").read_text() == "x"


@pytest.mark.parametrize(
    ("source", "tail", "kind", "words"),
    [
        (FILE, ":MINNE", UnknownName, "mine.py: no task is called 'MINNE'; did you mean MINE"),
        (FILE, ":loss", BadInput, "mine.py:loss is function; expected a task"),
        (FILE + "TWO = MINE\n", "", BadInput, r"holds 2 tasks \(MINE, TWO\); name one"),
        ("x = 1\n", "", BadInput, r"holds 0 tasks \(none\)"),
        (FILE + "\n1 / 0\n", ":MINE", BadInput, "mine.py, line 19 raised ZeroDivisionError"),
        (FILE + "\ndef (:\n", ":MINE", BadInput, "mine.py.* raised SyntaxError"),
        (FILE + "\nraise SystemExit(3)\n", ":MINE", BadInput, "raised SystemExit: 3"),
        (FILE.replace("steps=10", "steps=0"), ":MINE", BadInput, "steps=0; expected a whole number"),
        (FILE.replace("import torch\n", "import torch, no_such_module\n"), ":MINE", BadInput, "no_such_module"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, source: str, tail: str, kind: type[NetwrightError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        load_file(written(tmp_path, source) + tail)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no file .*none.py'; a task file is named as path/to/file.py:NAME"):
        open_task(f"{tmp_path / 'none.py'}:MINE", {})


def test_a_file_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_mine.py").write_text("RATES = (1e-3, 2e-1)\n", encoding="utf-8")
    source = FILE.replace("import netwright\n", "import netwright\nfrom neighbour_of_mine import RATES\n")
    made = load_file(written(tmp_path, source.replace("lr=(1e-3, 1e-1)", "lr=RATES")) + ":MINE")
    assert made.lr["backprop"][:2] == (1e-3, 2e-1)
