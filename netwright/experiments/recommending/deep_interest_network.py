"""Attention to the candidate finds, among several interests of a user, the one that decides a click.

Zhou et al. (2018). A history shows a few interests; whether a candidate is clicked depends on one of them. Averaged over the
history the others blur it; a local activation unit weighs each item of the history by what it has to do with the candidate.

Shape suffixes: U users, L places of a history, R candidates shown to a user, N rows of a pool.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, partial
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from netwright.core.part import Option, Paper
from netwright.engine.task import Data, Problem, Task, eval_grid, same, three_splits
from netwright.experiments._kind import Control, recipe, verdict
from netwright.tensor.streams import generator

MEAN, ATTENTION, NONE = (f"net/interest-net:pooling={pooling}" for pooling in ("mean", "attention", "none"))
PLAIN = "net/embedding-mlp"


@final
@dataclass(frozen=True)
class World:
    """What click logs are drawn from: groups of items, users with several interests, each a group.

    items: of a group. interests: groups a user likes. places: of a history, filled at least by half. shown: candidates a user
    is shown. signal: P(click) is (1 + signal) / 2 for a candidate of a group that the history shows, else (1 - signal) / 2.
    """

    users: int
    groups: int
    items: int
    interests: int
    places: int
    shown: int
    signal: float

    @property
    def vocabulary(self) -> int:
        """Item numbers: the padding, 0, then group after group."""
        return 1 + self.groups * self.items


def logs(world: World, seed: int) -> tuple[Tensor, Tensor]:
    """Rows (N, 1 + L) of the candidate's number and the history's, user after user, and the clicks (N,), 0.0 or 1.0.

    Half of the candidates are of a group that the user likes, the others of any group. Users whose histories are equal are left
    out: no two have a row in common.
    """
    g = generator(seed, "draw", "experiment/deep-interest-network")
    u, r = world.users, world.shown

    def below(n: int, *shape: int) -> Tensor:
        return torch.randint(n, shape, generator=g)

    def numbers(groups: Tensor) -> Tensor:
        """An item of each group."""
        return 1 + groups * world.items + below(world.items, *groups.shape)

    liked = torch.rand(u, world.groups, generator=g).argsort(1)[:, : world.interests]
    seen_UL = liked.gather(1, below(world.interests, u, world.places))
    length_U1 = world.places - below(world.places // 2 + 1, u, 1)
    there_UL = torch.arange(world.places) < length_U1
    history_UL = numbers(seen_UL) * there_UL
    fond_UR = liked.gather(1, below(world.interests, u, r))
    asked_UR = torch.where(below(2, u, r) == 0, fond_UR, below(world.groups, u, r))
    shows_UR = ((asked_UR[:, :, None] == seen_UL[:, None]) & there_UL[:, None]).any(-1)
    click_UR = torch.rand(u, r, generator=g) < torch.where(shows_UR, 1 + world.signal, 1 - world.signal) / 2
    rows_URN = torch.cat([numbers(asked_UR)[:, :, None], history_UL[:, None].expand(u, r, world.places)], -1)
    _, which_U, alike = history_UL.unique(dim=0, return_inverse=True, return_counts=True)
    alone_U = alike[which_U] == 1
    return rows_URN[alone_U].flatten(0, 1), click_UR[alone_U].flatten().float()


@cache
def pool(world: World) -> tuple[Tensor, Tensor]:
    """The logs that all seeds share: x (N, 1 + L), y (N, 1)."""
    x, click = logs(world, 0)
    return x, click[:, None]


def data(seed: int, world: World) -> Data:
    """The rows of three fifths of the users to train on, of a fifth each to validate and to test, drawn by the seed."""
    x, y = pool(world)
    rows_UR = torch.arange(len(x)).view(-1, world.shown)
    users = len(rows_UR)
    train, val, test = (rows_UR[some].flatten() for some in three_splits(users, seed, users // 5, users // 5))
    return Data(x, y, train, val, test)


def auc(out: Tensor, y: Tensor) -> float:
    """Share of the pairs of a click and none in which the click scores higher, ties counted half: out, y (N, 1), y 0 or 1.

    By ranks (Mann and Whitney): those of the clicks, tied ones averaged, less the smallest sum they can have, over the pairs.
    Exact; NaN where a score is NaN, or where there are no pairs.
    """
    if out.isnan().any():
        return math.nan
    _, place_N, ties = out.flatten().unique(return_inverse=True, return_counts=True)
    rank_N = (ties.cumsum(0) - (ties - 1) / 2.0)[place_N].double()
    click_N = y.flatten() > 0
    clicks, others = int(click_N.sum()), int((~click_N).sum())
    above = float(rank_N[click_N].sum()) - clicks * (clicks + 1) / 2
    return above / (clicks * others) if clicks and others else math.nan


#: size -> (users, groups, items of a group, places of a history, widths, steps, batch)
SIZES = {
    "tiny": (1500, 8, 3, 10, (32,), 200, 256),
    "small": (3000, 20, 5, 12, (32, 16), 1000, 64),
    "full": (20000, 40, 10, 24, (64, 32), 5000, 64),
}


def make(size: str, interests: int, signal: float) -> Task:
    """The task at one size. A failed run scores 0.5, as one that knows nothing does."""
    users, groups, items, places, widths, steps, batch = SIZES[size]
    world = World(users, groups, items, interests, places, shown=4, signal=signal)
    problem = Problem(
        F.binary_cross_entropy_with_logits,
        auc,
        "AUC",
        higher_is_better=True,
        worst=0.5,
        delta=0.005,
        input=(1 + places,),
        output=(1,),
        gives=frozenset({"tokens", "targets"}),
        encode=same,
        vocabulary=world.vocabulary,
    )
    return Task(
        id="experiment/deep-interest-network",
        name="deep-interest-network",
        version="1",
        size=size,
        summary="Clicks of users with several interests.",
        problem=problem,
        data=partial(data, world=world),
        widths=widths,
        steps=steps,
        batch=batch,
        evals=eval_grid(steps),
        lr=(1e-3, 1e-1, 2e-2),
        slots={"net": MEAN, "activation": "activation/prelu", "rule": "rule/backprop", "norm": ""}
        | {"optimizer": "optimizer/adam", "schedule": "optimizer/constant"},
        options={"interests": interests, "signal": signal},
    )


PART = recipe(
    make,
    name="deep-interest-network",
    paper=Paper("deep-interest-network", equation="(3)"),
    formula=r"\sum_j w(q, k_j)\, k_j \;\;\mathrm{against}\;\; \frac{1}{L} \sum_j k_j",
    uses=("net/interest-net", PLAIN, "activation/prelu", "rule/backprop", "optimizer/adam", "optimizer/constant"),
    arms=(MEAN, ATTENTION, PLAIN, NONE),
    terms={"match": "params", "trials": 3},
    options=(
        Option("interests", 3, "groups of items that a user likes", bounds=(0, 8)),
        Option("signal", 0.8, "by how much a history that shows the group makes a click likelier", bounds=(-1e-9, 1.0)),
    ),
    sizes={
        "tiny": {"seeds": 7, "arms": (MEAN, ATTENTION, NONE), "terms": {"trials": 1}},
        "small": {"seeds": 10},
        "full": {"seeds": 20},
    },
    predicates=(
        verdict(
            "attention", "attention to the candidate beats the mean of the history", ATTENTION, ("better",), where="section 4.3"
        ),
        verdict(
            "history",
            "the mean of the history is worth something: without it the score falls",
            NONE,
            ("worse",),
            where="section 4.2",
        ),
    ),
    controls=(
        Control("users with one interest: the mean blurs nothing", {"interests": 1}, breaks=("attention",)),
        Control("clicks at random", {"signal": 0.0}, breaks=("attention", "history")),
    ),
    deviations=(
        "generated logs in place of the paper's of Amazon, MovieLens and Alibaba; users who are tested have no row in training",
        "AUC over all test rows; the paper averages it over users, weighted by what they were shown (section 6.3)",
        "PReLU in every arm, of small widths; neither Dice nor mini-batch aware regularisation, which are ideas of their own",
        "Adam at a tuned, constant rate; the paper's decays",
    ),
)
