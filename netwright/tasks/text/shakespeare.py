"""Tiny Shakespeare: the next character of 1.1 million characters of plays, for a small causal transformer."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from netwright.core.errors import require
from netwright.core.part import Option, Paper
from netwright.engine.task import Data, Problem, Task, eval_grid, nats, one_hot
from netwright.tasks._kind import host_net, task_part
from netwright.tasks._read import kept, text
from netwright.tensor.streams import permutation

#: The 65 characters of the text, in order of their code points.
ALPHABET = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ORIGIN = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
#: size -> (context, model width, heads, feed-forward widths, steps, batch)
SIZES = {"small": (64, 64, 4, (256, 256), 1000, 16), "full": (128, 96, 4, (384,) * 4, 3000, 32)}


@kept
def pool(given: str) -> Tensor:
    """The text as character numbers (N,)."""
    characters = text("tinyshakespeare.txt", ORIGIN, given)
    number = {c: i for i, c in enumerate(ALPHABET)}
    strange = sorted(set(characters) - set(ALPHABET))
    shown = ", ".join(map(repr, strange[:5]))
    require(not strange, f"tinyshakespeare.txt holds {shown}, which Tiny Shakespeare has not")
    return torch.tensor([number[c] for c in characters])


def read(seed: int, context: int, given: str) -> Data:
    """Windows of `context` characters, as views of the text: x (N, context), and y the same one character on.

    Every window inside the first 90 % of the text trains. The last 10 % are cut into windows end to end, and the seed
    draws half of them to validate and half to test.
    """
    tokens = pool(given)
    cut = len(tokens) * 9 // 10
    held = cut + context * torch.arange((len(tokens) - 1 - cut) // context)
    require(len(held) > 1, f"a text of {len(tokens)} characters is too short for windows of {context}")
    held = held[permutation(len(held), seed, "split")]
    half = len(held) // 2
    x, y = tokens[:-1].unfold(0, context, 1), tokens[1:].unfold(0, context, 1)
    return Data(x, y, torch.arange(cut - context), held[:half], held[half:])


def shakespeare(size: str, data: str) -> Task:
    """The task at one size. A failed run scores log 65, as knowing nothing would."""
    context, d, heads, widths, steps, batch = SIZES[size]
    kinds = len(ALPHABET)
    problem = Problem(
        "cross-entropy",
        nats,
        "nats per character",
        higher_is_better=False,
        worst=math.log(kinds),
        delta=0.01,
        input=(context,),
        output=(context, kinds),
        classes=kinds,
        gives=frozenset({"tokens"}),
        encode=partial(one_hot, classes=kinds),
    )
    return Task(
        id="task/shakespeare",
        name="shakespeare",
        version=PART.version,
        size=size,
        summary=PART.summary,
        host="net/tiny-transformer",
        problem=problem,
        data=partial(read, context=context, given=data),
        net=partial(host_net, "net/tiny-transformer", problem, d=d, heads=heads),
        widths=widths,
        steps=steps,
        batch=batch,
        evals=eval_grid(steps),
        lr=(3e-4, 3e-2, 3e-3),
        weight_decay=0.1,
        clip=1.0,
        slots={
            "activation": "activation/gelu",
            "rule": "rule/backprop",
            "norm": "layer/layer-norm",
            "optimizer": "optimizer/adamw:beta2=0.99",
            "schedule": "optimizer/warmup-cosine",
        },
        control="rule/frozen-hidden",
    )


PART = task_part(
    shakespeare,
    paper=Paper(
        title="The Unreasonable Effectiveness of Recurrent Neural Networks",
        authors="Karpathy, A.",
        year=2015,
        code="karpathy/char-rnn",
    ),
    options=(Option("data", "", "the folder that holds tinyshakespeare.txt; else NETWRIGHT_DATA"),),
    uses=("net/tiny-transformer",),
    versions={"1": {"small": "9a2fb6c1aee39def", "full": "4fa839d33a5c7bb6"}},
)
