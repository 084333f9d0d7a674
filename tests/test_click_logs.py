"""Click logs are what they are said to be, splits share no user, and the area under the ROC curve is counted right."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from netwright.core import catalogue
from netwright.experiments.recommending.deep_interest_network import SIZES, World, auc, logs, make
from netwright.nets.sequence.interest_net import ActivationUnit, Interests
from netwright.tensor.streams import generator, initialise

WORLD = World(users=400, groups=6, items=4, interests=2, places=9, shown=3, signal=0.6)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


# Area under the curve -------------------------------------------------------------------------------------------------


def pairs_counted(out: Tensor, y: Tensor) -> float:
    """The share of pairs in the right order, a pair at a time."""
    scores, clicks = out.flatten().tolist(), y.flatten().tolist()
    won = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a, clicked in zip(scores, clicks, strict=True)
        if clicked
        for b, other in zip(scores, clicks, strict=True)
        if not other
    ]
    return sum(won) / len(won)


@pytest.mark.parametrize("values", [2, 5, 10**6], ids=["mostly ties", "many ties", "no ties"])
@pytest.mark.parametrize("n", [2, 7, 90])
def test_auc_is_the_share_of_pairs_in_the_right_order(values: int, n: int) -> None:
    g = generator(n, "probe", str(values))
    out = torch.randint(values, (n, 1), generator=g) / 7 - 0.3
    y = torch.cat([torch.ones(1, 1), torch.zeros(1, 1), torch.randint(2, (n - 2, 1), generator=g).float()])
    wanted = pairs_counted(out, y)
    assert auc(out, y) == pytest.approx(wanted, abs=1e-15)
    assert auc(out, y) == pytest.approx(roc_auc_score(y.flatten(), out.flatten()), abs=1e-12)
    assert auc(-out, y) == pytest.approx(1 - wanted, abs=1e-15) == auc(out, 1 - y)


def test_auc_at_its_ends_and_where_there_is_none() -> None:
    y = torch.tensor([[0.0], [1.0], [1.0]])
    assert auc(y - 9, y) == 1 and auc(-y, y) == 0 and auc(torch.zeros(3, 1), y) == 0.5
    assert auc(torch.tensor([[-math.inf], [math.inf], [0.0]]), y) == 1
    assert math.isnan(auc(torch.tensor([[0.0], [math.nan], [1.0]]), y))
    assert math.isnan(auc(y, torch.ones(3, 1))) and math.isnan(auc(y, torch.zeros(3, 1)))


# The logs -------------------------------------------------------------------------------------------------------------


def groups_of(row: list[int]) -> list[int]:
    """The group of each item of a row, padding left out."""
    return [(item - 1) // WORLD.items for item in row if item]


def test_a_history_shows_the_interests_of_its_user() -> None:
    x, y = logs(WORLD, 3)
    assert x.shape == (len(y), 1 + WORLD.places) and x.dtype == torch.int64 and len(x) % WORLD.shown == 0
    assert 0 <= int(x.min()) and int(x.max()) == WORLD.vocabulary - 1 and bool((x[:, 0] > 0).all())
    for user in x.tolist()[:: WORLD.shown]:
        history = user[1:]
        length = sum(item > 0 for item in history)
        assert WORLD.places // 2 <= length <= WORLD.places and not any(history[length:])
        assert len(set(groups_of(history))) <= WORLD.interests
    assert {len(set(groups_of(user[1:]))) for user in x.tolist()} == {1, 2}
    assert torch.equal(x[0 :: WORLD.shown, 1:], x[1 :: WORLD.shown, 1:])


def test_a_click_follows_whether_the_history_shows_the_group() -> None:
    x, y = logs(WORLD, 0)
    clicks: dict[bool, list[float]] = {True: [], False: []}
    for row, click in zip(x.tolist(), y.tolist(), strict=True):
        clicks[groups_of(row[:1])[0] in groups_of(row[1:])].append(click)
    for shown, wanted in ((True, 0.8), (False, 0.2)):
        rate, n = sum(clicks[shown]) / len(clicks[shown]), len(clicks[shown])
        assert n > 300 and abs(rate - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / n), (shown, rate)


@pytest.mark.parametrize("interests", [1, 3])
@pytest.mark.parametrize("size", ["tiny", "small"])
def test_no_row_is_in_two_splits(size: str, interests: int) -> None:
    before = torch.random.get_rng_state()
    data = make(size, interests, 0.8).data(4)
    again, other = make(size, interests, 0.8).data(4), make(size, interests, 0.8).data(5)
    assert torch.equal(before, torch.random.get_rng_state())
    rows = [{tuple(row) for row in data.split(name)[0].tolist()} for name in ("train", "val", "test")]
    histories = [{row[1:] for row in some} for some in rows]
    for found in (rows, histories):
        assert len(set.union(*found)) == sum(map(len, found))
    assert 0.9 * SIZES[size][0] < sum(map(len, histories)) <= SIZES[size][0]
    assert torch.equal(data.test, again.test) and not torch.equal(data.test, other.test)


def test_the_problem_fits_its_data() -> None:
    task = make("tiny", 3, 0.8)
    (x, y), problem = task.data(0).split("test"), task.problem
    assert x.shape[1:] == problem.input and y.shape[1:] == problem.output and int(x.max()) < (problem.vocabulary or 0)
    knows_nothing = torch.zeros_like(y)
    assert problem.metric(knows_nothing, y) == problem.worst
    assert float(problem.loss(knows_nothing, y)) == pytest.approx(math.log(2))
    assert problem.encode is not None and torch.equal(problem.encode(y), y)


# The unit's second writing notices what a unit may be taken for -------------------------------------------------------

POOLED: Any = next(part for part in catalogue.parts("net") if any("attention" in (o.allowed or ()) for o in part.options))
UNIT = ActivationUnit.forward


def as_softmax(unit: Any, q: Tensor, k: Tensor) -> Tensor:
    return UNIT(unit, q, k).softmax(1)


def turned_round(unit: Any, q: Tensor, k: Tensor) -> Tensor:
    return UNIT(unit, k[:, 0], q.unsqueeze(1).expand_as(k))


@pytest.mark.parametrize("wrong", [as_softmax, turned_round])
def test_a_reference_notices_another_unit(wrong: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from netwright.contract import apply, checks

    (reference,) = (check for check in checks("net") if check.name == "reference")
    assert apply(POOLED, reference).ok
    monkeypatch.setattr(ActivationUnit, "forward", wrong)
    assert "differs from the reference" in apply(POOLED, reference).message


@pytest.mark.parametrize("case", POOLED.cases(), ids=str)
def test_a_history_of_padding_alone_gives_finite_gradients(case: Any) -> None:
    net = POOLED.build(case.problem, case.widths, {}, **case.options)
    initialise(net, 0)
    x = case.x.clone()
    x[:, 1:] = 0
    out = net(x)
    out.square().sum().backward()
    grads = [p.grad for p in net.parameters()]
    assert out.isfinite().all() and all(g is not None and bool(g.isfinite().all()) for g in grads)
    read: Any = net.blocks[0][0]
    assert isinstance(read, Interests) and not read.items.vector.weight.grad[0].any()
