"""Infinite learning rates on a stream of two texts: less of the first is forgotten than under cosines that warm up anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.part import Option, Paper
from netwright.experiments._kind import Control, Figure, Predicate, experiment
from netwright.tensor.streams import generator

SYMBOLS, CONTEXT, WIDTH, BATCH = 16, 2, 64, 64
TRAIN, HELD = 20_000, 4_000  # symbols of each text
RATES = (1e-3, 3e-3, 1e-2, 3e-2)


def text(draw: torch.Generator, length: int) -> Tensor:
    """Symbols (length,) of a Markov chain of order CONTEXT with a table of its own."""
    table = torch.softmax(2.5 * torch.randn(SYMBOLS**CONTEXT, SYMBOLS, generator=draw), -1).cumsum(-1)
    chance = torch.rand(length, generator=draw)
    out = [0] * CONTEXT
    for u in chance[CONTEXT:]:
        state = out[-2] * SYMBOLS + out[-1]
        out.append(min(int(torch.searchsorted(table[state], u)), SYMBOLS - 1))
    return torch.tensor(out)


def examples(symbols: Tensor) -> tuple[Tensor, Tensor]:
    """Contexts (N, CONTEXT) and the symbols (N,) that follow."""
    return symbols.unfold(0, CONTEXT, 1)[:-1], symbols[CONTEXT:]


def rates(schedule: str, steps: int, level: float) -> Callable[[int], float]:
    """The factor at every step of both stages: one schedule over the stream, or a warm-up and a cosine for each text."""
    if schedule == "infinite":
        whole: Any = catalogue.get("optimizer/infinite-lr")
        return whole.build(2 * steps, level=level, floor=level / 10)
    anew: Any = catalogue.get("optimizer/warmup-cosine")
    each = anew.build(steps, warmup=0.1)
    return lambda step: each(step % steps)


def cell(seed: int, *, schedule: str, lr: float, steps: int, level: float, same: bool) -> Mapping[str, float]:
    """Held-out loss, in nats, of the first text after each stage and of the second at the end."""
    draw = generator(seed, "experiment", "stream")
    texts = [text(draw, TRAIN + HELD) for _ in range(2)]
    if same:
        texts[1] = texts[0]
    with torch.device("meta"):
        body = (nn.Linear(16 * CONTEXT, WIDTH), nn.Tanh(), nn.Linear(WIDTH, SYMBOLS))
        net = nn.Sequential(nn.Embedding(SYMBOLS, 16), nn.Flatten(), *body)
    net.to_empty(device="cpu")
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=draw) / max(1, p.shape[-1]) ** 0.5 if p.dim() > 1 else torch.zeros(p.shape))
    adam: Any = catalogue.get("optimizer/adam")
    optimizer, factor = adam.build(net, lr), rates(schedule, steps, level)

    def held_out(which: int) -> float:
        x, y = examples(texts[which][TRAIN:])
        with torch.no_grad():
            return float(F.cross_entropy(net(x), y))

    after = []
    for stage in range(2):
        x, y = examples(texts[stage][:TRAIN])
        for step in range(steps):
            rows = torch.randint(len(x), (BATCH,), generator=draw)
            for group in optimizer.param_groups:
                group["lr"] = lr * factor(stage * steps + step)
            optimizer.zero_grad()
            F.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
        after.append(held_out(0))
    return {"first": after[0], "kept": after[1], "second": held_out(1), "both": (after[1] + held_out(1)) / 2}


def at_best(table: Any, schedule: str, column: str) -> float | None:
    """A column at the rate with the least mean loss on both texts at the end, for one seed."""
    found = [row for row in table.rows if row["schedule"] == schedule and row["both"] is not None]
    return min(found, key=lambda row: row["both"])[column] if found else None


def gap(table: Any, column: str) -> float | None:
    """The cosine's loss less the infinite schedule's."""
    cosine, infinite = (at_best(table, name, column) for name in ("cosine", "infinite"))
    return None if cosine is None or infinite is None else cosine - infinite


PART = experiment(
    cell,
    name="infinite-lr-stream",
    paper=Paper("infinite-lr"),
    formula=r"L_1(\theta_2^{cos}) - L_1(\theta_2^{inf}) > 0",
    uses=("optimizer/infinite-lr", "optimizer/warmup-cosine", "optimizer/adam"),
    grid={"schedule": ("infinite", "cosine"), "lr": RATES},
    gives=("first", "kept", "second", "both"),
    options=(
        Option("steps", 600, "on each text", bounds=(1, 10**6)),
        Option("level", 0.1, "the share of the rate that the infinite schedule keeps", bounds=(0.0, 1.0)),
        Option("same", False, "the second text is the first again"),
    ),
    sizes={"tiny": {"seeds": 4, "steps": 150, "lr": (1e-3, 1e-2)}, "small": {"seeds": 16}, "full": {"seeds": 32, "steps": 4000}},
    predicates=(
        Predicate(
            "forgets less",
            "at each one's best rate, the loss on the first text is lower at the end than under cosines that warm up anew",
            lambda table: gap(table, "kept"),
            inside=(0.02, float("inf")),
            reads=("schedule", "lr", "kept", "both"),
            where="section 4",
        ),
        Predicate(
            "learns as well",
            "and the loss on the second text is at most 0.05 nats higher",
            lambda table: gap(table, "second"),
            inside=(-0.05, float("inf")),
            reads=("schedule", "lr", "second", "both"),
            where="section 4",
        ),
    ),
    controls=(
        Control("the second text is the first again: nothing is forgotten", {"same": True}, ("forgets less",)),
        Control("a constant rate too low to learn by", {"level": 1e-4}, ("learns as well",)),
        Control("half of the rate is kept, not a tenth", {"level": 0.5}, makes=("learns as well",)),
    ),
    figure=Figure("lr", "kept", "log-x", label="loss on the first text at the end, in nats", by="schedule"),
)
