"""Tasks beyond their contract: losses, readers of data, augmentation, and what is said where data are missing."""

from __future__ import annotations

import io
import math
import os
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import toys

from netwright.contract import apply, checks
from netwright.core import catalogue
from netwright.core.contract import Skip
from netwright.core.errors import BadInput
from netwright.engine.task import Task, accuracy, eval_grid, mse, nats, one_hot, tensor_hash, three_splits
from netwright.tasks import TaskPart
from netwright.tasks import _contract as contract
from netwright.tasks import _read as data
from netwright.tasks.graph._npz import read_graph
from netwright.tensor.streams import generator

FIXTURES = Path(__file__).parent / "fixtures"
FOLDER = str(FIXTURES)
PARTS = catalogue.parts("task")
#: Tasks whose data are files.
FILED = [part for part in PARTS if any(option.name == "data" for option in part.options)]
IMAGES = [part for part in FILED if any(option.name == "host" for option in part.options)]
cross_entropy = toys.ENTROPY.mean
TEXTS = [part for part in FILED if "tokens" in part.build().problem.gives]


@pytest.fixture(autouse=True)
def no_hub() -> Iterator[None]:
    token = data.HUB.set(False)
    yield
    data.HUB.reset(token)


def names(parts: list[TaskPart]) -> list[str]:
    return [part.name for part in parts]


# Losses and metrics ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 10, 15, 16, 65])
def test_padded_cross_entropy_is_torchs(classes: int) -> None:
    g = generator(0, "probe")
    out = torch.randn(32, classes, generator=g, requires_grad=True)
    y = torch.randint(classes, (32,), generator=g)
    value, wanted = cross_entropy(out, y), F.cross_entropy(out, y)
    (slope,), (wanted_slope,) = torch.autograd.grad(value, out), torch.autograd.grad(wanted, out)
    assert abs(value.item() - wanted.item()) < 1e-6
    assert torch.allclose(slope, wanted_slope, atol=1e-7)


def test_cross_entropy_of_sequences_is_the_mean_over_all_positions() -> None:
    g = generator(0, "probe")
    out, y = torch.randn(4, 7, 5, generator=g), torch.randint(5, (4, 7), generator=g)
    wanted = -out.log_softmax(-1).gather(-1, y[..., None]).mean()
    assert torch.allclose(cross_entropy(out, y), wanted)
    assert nats(out, y) == pytest.approx(wanted.item(), rel=1e-6)


def test_cross_entropy_has_no_nan_where_logits_are_extreme() -> None:
    out = torch.tensor([[1e4, -1e4], [-1e30, 1e30]], requires_grad=True)
    cross_entropy(out, torch.tensor([0, 1])).backward()
    assert out.grad is not None and torch.equal(out.grad, torch.zeros(2, 2))


def test_cross_entropy_under_vmap_is_one_copy_at_a_time() -> None:
    g = generator(0, "probe")
    out, y = torch.randn(3, 6, 10, generator=g), torch.randint(10, (3, 6), generator=g)
    got = torch.func.vmap(torch.func.grad(cross_entropy))(out, y)
    for k in range(3):
        assert torch.allclose(got[k], torch.func.grad(cross_entropy)(out[k], y[k]))


def test_metrics_by_hand() -> None:
    out = torch.tensor([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0], [math.nan, 0.0]])
    assert accuracy(out, torch.tensor([0, 1, 1, 0])) == 0.5
    assert mse(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])) == 2.5
    assert nats(torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64)) == pytest.approx(math.log(4))
    assert one_hot(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]


# Pieces of the kind ---------------------------------------------------------------------------------------------------


def test_evaluations_are_evenly_spaced_and_end_at_the_last_step() -> None:
    assert eval_grid(600) == tuple(range(60, 601, 60))
    assert eval_grid(3) == (1, 2, 3)


def test_three_splits_refuses_more_than_there_is() -> None:
    train, val, test = three_splits(10, 0, 3, 2)
    assert sorted(torch.cat([train, val, test]).tolist()) == list(range(10)) and len(val) == 3 and len(test) == 2
    with pytest.raises(BadInput, match="pool of 10"):
        three_splits(10, 0, 5, 5)


def test_the_hash_sees_values_shape_and_dtype() -> None:
    x = torch.arange(12.0)
    hashes = {tensor_hash(t) for t in (x, x + 1, x.view(3, 4), x.double(), x.long(), x[:0])}
    assert len(hashes) == 6
    assert tensor_hash(x.view(3, 4).T) == tensor_hash(x.view(3, 4).T.contiguous())


def test_overlapping_windows_are_hashed_without_being_copied_out() -> None:
    text = torch.arange(50)
    windows = text.unfold(0, 8, 1)
    assert tensor_hash(windows) == tensor_hash(text.clone().unfold(0, 8, 1))
    changed = text.clone()
    changed[49] = 0
    assert tensor_hash(windows) != tensor_hash(changed.unfold(0, 8, 1))


@pytest.mark.every_part
def test_a_task_builds_only_at_its_sizes_and_options() -> None:
    for part in PARTS:
        with pytest.raises(BadInput, match="small"):
            part.build(size="large")


# Changed data are noticed ---------------------------------------------------------------------------------------------


def test_changed_data_without_a_new_version_are_noticed() -> None:
    part = next(p for p in PARTS if p not in FILED and p.versions)
    check = next(c for c in checks("task") if c.name == "version")
    assert apply(part, check).ok

    def other(**options: object) -> Task:
        task = part.make(**options)  # type: ignore[misc]
        object.__setattr__(task, "_hash", "0" * 16)
        return task

    changed = TaskPart(other, name=part.name, paper=part.paper, summary="x", options=part.options, versions=part.versions)
    result = apply(changed, check)
    assert not result.ok and "add a version" in result.message


# Readers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", IMAGES, ids=names(IMAGES))
def test_images_of_the_hubs_layout(part: TaskPart) -> None:
    for host in next(option for option in part.options if option.name == "host").allowed or ():
        task = part.build(data=FOLDER, host=host)
        d = task.data(0)
        assert len(d.x) == len(d.y) == 200 and tuple(d.x.shape[1:]) == task.problem.input
        assert d.test.tolist() == list(range(160, 200)), "the test set is the file's own"
        assert len(d.train) + len(d.val) == 160
        assert sorted(d.y[d.test].bincount().tolist()) == [4] * 10
        assert d.x.dtype == torch.float32 and d.x.is_contiguous() and torch.isfinite(d.x).all()


def test_pixels_come_out_as_they_went_in() -> None:
    x, y, train = data.images("mnist", "", 1, 28, 10, FOLDER)
    assert x.dtype == torch.uint8 and tuple(x.shape) == (200, 1, 28, 28) and train == 160
    assert int(x.min()) == 0 and int(x.max()) > 200
    bars = [x[y == k].float().mean((0, 1, 2)).argmax().item() for k in range(10)]
    assert bars == sorted(bars) and bars[0] < 7 and bars[-1] > 21, "the bar stands further right, class by class"


@pytest.mark.parametrize("part", FILED, ids=names(FILED))
@pytest.mark.parametrize("check", ["splits", "seeds"])
def test_the_contract_on_the_fixtures(part: TaskPart, check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(data.VARIABLE, FOLDER)
    getattr(contract, check)(part)


@pytest.mark.parametrize("part", TEXTS, ids=names(TEXTS))
def test_windows_of_the_text(part: TaskPart) -> None:
    task = part.build(data=FOLDER)
    (length,) = task.problem.input
    d = task.data(0)
    assert torch.equal(d.x[5, 1:], d.y[5, :-1]), "y is x one character on"
    assert int(d.train.max()) + length < 18_000, "training windows end inside the first 90 %"
    held = torch.cat([d.val, d.test]).sort().values
    assert int(held[0]) == 18_000 and bool((held.diff() == length).all()), "held-out windows lie end to end"


@pytest.mark.parametrize("part", [p for p in PARTS if p.build().augment], ids=lambda p: p.name)
@pytest.mark.every_part
def test_crops_are_pieces_of_the_bordered_image(part: TaskPart) -> None:
    augment = part.build().augment
    assert augment is not None
    x = torch.rand(64, 3, 8, 8, generator=generator(0, "probe")) + 1
    out = augment(x, generator(0, "augment"))
    bordered = F.pad(x, (4,) * 4)
    flips = 0
    for image, source in zip(out, bordered, strict=True):
        windows = source.unfold(1, 8, 1).unfold(2, 8, 1).permute(1, 2, 0, 3, 4).reshape(-1, 3, 8, 8)
        straight = bool((windows == image).flatten(1).all(1).any())
        mirrored = bool((windows.flip(-1) == image).flatten(1).all(1).any())
        assert straight or mirrored
        flips += mirrored and not straight
    assert 16 < flips < 48


def test_fixtures_are_what_their_script_writes(tmp_path: Path) -> None:
    runpy.run_path(str(FIXTURES / "make_fixtures.py"))["make"](tmp_path)
    assert (tmp_path / "tinyshakespeare.txt").read_text() == (Path(FOLDER) / "tinyshakespeare.txt").read_text()
    (one, y1, _), (two, y2, _) = (read_graph("cora.npz", "", 7, str(folder)) for folder in (FOLDER, tmp_path))
    assert torch.equal(one.x, two.x) and torch.equal(one.edges, two.edges) and torch.equal(y1, y2)
    for name, channels, size in (("mnist", 1, 28), ("cifar10", 3, 32)):
        ours, y, _ = data.images(name, "", channels, size, 10, FOLDER)
        theirs, y2, _ = data.images(name, "", channels, size, 10, str(tmp_path))
        assert torch.equal(y, y2) and torch.equal(ours, theirs)


# What a user is told --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", FILED, ids=names(FILED))
def test_missing_data_say_which_files_are_wanted_and_where(
    part: TaskPart, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(data.VARIABLE, raising=False)
    with pytest.raises(BadInput) as error:
        part.build().data(0)
    assert (
        data.VARIABLE in str(error.value)
        and "not set" in str(error.value)
        and any(ending in str(error.value) for ending in ("parquet", ".txt", ".npz"))
    )
    with pytest.raises(BadInput, match="lacks"):
        part.build(data=str(tmp_path)).data(0)
    with pytest.raises(Skip, match=data.VARIABLE):
        contract.splits(part)


def test_the_environment_names_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(data.VARIABLE, FOLDER)
    for part in FILED:
        assert len(part.build().data(0).x) > 0


def test_the_hub_is_asked_once_and_its_tables_are_read_like_files(monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    import pyarrow.parquet

    asked: list[tuple[str, str]] = []

    class Split:
        def __init__(self, split: str) -> None:
            self.table = pyarrow.parquet.read_table(f"{FOLDER}/mnist/{split}-00000-of-00001.parquet")

        def with_format(self, form: str) -> Split:
            assert form == "arrow"
            return self

        def __getitem__(self, rows: slice) -> object:
            return self.table

    def load_dataset(hub: str, split: str) -> Split:
        asked.append((hub, split))
        if hub == "toy/down":
            raise ConnectionError("no route")
        return Split(split)

    monkeypatch.delenv(data.VARIABLE, raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    token = data.HUB.set(True)
    try:
        x, _, train = data.images("mnist", "toy/up", 1, 28, 10)
        assert len(x) == 200 and train == 160 and asked == [("toy/up", "train"), ("toy/up", "test")]
        for _ in range(2):
            with pytest.raises(BadInput, match="no route"):
                data.images("mnist", "toy/down", 1, 28, 10)
        assert asked[2:] == [("toy/down", "train")]
    finally:
        data.HUB.reset(token)
        data._refused.pop("toy/down", None)


def image_file(folder: Path, column: str = "image", label: object = 1, raw: bytes | None = b"", size: int = 28) -> str:
    import pyarrow
    import pyarrow.parquet
    from PIL import Image

    out = io.BytesIO()
    Image.new("L", (size, size)).save(out, "PNG")
    cell = {"bytes": out.getvalue() if raw == b"" else raw, "path": "0.png"}
    (folder / "mnist").mkdir()
    for split in ("train", "test"):
        path = folder / "mnist" / f"{split}-00000-of-00001.parquet"
        pyarrow.parquet.write_table(pyarrow.table({column: [cell] * 3, "label": [label] * 3}), path)
    return str(folder)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"column": "picture"}, "has the columns picture, label; expected label and one of image, img"),
        ({"label": 10}, "row 0: label 10; expected a whole number from 0 to 9"),
        ({"label": None}, "row 0: label None"),
        ({"raw": None}, "row 0: the image holds no bytes"),
        ({"raw": b"GIF89a"}, "row 0: not an image"),
        ({"size": 27}, r"row 0: an image of shape \(27, 27\); expected \(28, 28\)"),
    ],
)
def test_damaged_image_files_name_file_and_row(tmp_path: Path, wrong: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words) as error:
        data.images("mnist", "", 1, 28, 10, image_file(tmp_path, **wrong))  # type: ignore[arg-type]
    assert "train-00000" in str(error.value)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    folder = image_file(tmp_path)
    path = tmp_path / "mnist" / "test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BadInput, match="test-00000-of-00001.parquet can't be read as parquet"):
        data.images("mnist", "", 1, 28, 10, folder)


def test_text_that_is_not_the_text(tmp_path: Path) -> None:
    path = tmp_path / "tinyshakespeare.txt"
    for part in TEXTS:
        path.write_bytes(b"\xff\xfe")
        with pytest.raises(BadInput, match="not UTF-8"):
            part.build(data=str(tmp_path)).data(0)
        path.write_text("a" * 5000 + "é", encoding="utf-8")
        with pytest.raises(BadInput, match="'é'"):
            part.build(data=str(tmp_path)).data(0)
        path.write_text("too short")
        with pytest.raises(BadInput, match="too short for windows"):
            part.build(data=str(tmp_path)).data(0)


# The real data --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not os.environ.get(data.VARIABLE), reason="NETWRIGHT_DATA names no folder with the real sets")
@pytest.mark.parametrize("part", FILED, ids=names(FILED))
def test_the_real_sets(part: TaskPart) -> None:
    task = part.build()
    try:
        d = task.data(0)
    except BadInput as error:
        pytest.skip(str(error))
    wanted = {"image": (70_000, 60_000), "vector": (70_000, 60_000), "graph": (2_708,)}
    if part in TEXTS:
        wanted["tokens"] = (1_115_394 - task.problem.input[0],)
    assert any(len(d.x) in sizes for give, sizes in wanted.items() if give in task.problem.gives)
    if part in IMAGES:
        assert len(d.test) == 10_000 and d.y[d.test].bincount().min() > 890
        assert d.x[d.train[:2000]].mean().abs() < 0.1
