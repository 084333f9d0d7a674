"""A causal language model: embeddings, pre-norm transformer blocks, a linear readout (Vaswani et al., 2017).

Shape suffixes: B batch, L positions, D features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.part import Option, Paper
from netwright.engine.blocks import Blocks, Factory
from netwright.engine.task import Problem
from netwright.nets._kind import Case, Tags, activation_of, channels_after, linear_of, needs_bias, net, norm_of
from netwright.nets._toy import by_hand, problem, tokens


@final
class TransformerBlock(nn.Module):
    """Pre-norm causal self-attention and a feed-forward map, both residual; hidden: width of the feed-forward map."""

    def __init__(self, d: int, heads: int, hidden: int, fill: Mapping[str, Factory]) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = norm_of(fill, d, -1), norm_of(fill, d, -1)
        self.qkv = nn.Linear(d, 3 * d, bias=needs_bias(self.norm1))
        self.out = nn.Linear(d, d)
        wide = 2 * hidden if "mlp" in fill else hidden
        self.up = linear_of(fill, ("layer",), d, wide)
        self.act = activation_of(fill, wide, -1)
        self.down = linear_of(fill, ("layer",), channels_after(self.act, wide), d)

    def forward(self, x_BLD: Tensor) -> Tensor:
        b, n, d = x_BLD.shape
        q, k, v = self.qkv(self.norm1(x_BLD)).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BLD = x_BLD + self.out(mixed.transpose(1, 2).reshape(b, n, d))
        return x_BLD + self.down(self.act(self.up(self.norm2(x_BLD))))


@final
class Embed(nn.Module):
    """Tokens (B, L) -> (B, L, D): a learnt vector a token plus one a position."""

    def __init__(self, vocabulary: int, length: int, d: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, d)
        self.position = nn.Embedding(length, d)
        self.scale = 1 / math.sqrt(d)  # torch draws embeddings with variance 1; the residual stream starts at 2/d

    def forward(self, x_BL: Tensor) -> Tensor:
        places = torch.arange(x_BL.shape[-1], device=x_BL.device)
        return (self.token(x_BL) + self.position(places)) * self.scale


class TinyTransformer(Blocks):
    """A causal language model: embeddings, one TransformerBlock a width, norm and linear readout over the vocabulary.

    widths: feed-forward widths, one a block.
    """

    def __init__(
        self, vocabulary: int, length: int, d: int, heads: int, widths: Sequence[int], fill: Mapping[str, Factory]
    ) -> None:
        if d % heads:
            raise BadInput(f"d={d} is not a multiple of heads={heads}")
        blocks: list[nn.Module] = [TransformerBlock(d, heads, hidden, fill) for hidden in widths]
        blocks[0] = nn.Sequential(Embed(vocabulary, length, d), blocks[0])
        readout = nn.Sequential(norm_of(fill, d, -1), linear_of(fill, ("head",), d, vocabulary))
        super().__init__(blocks, readout, [(length, d)] * len(widths))


def tiny_transformer(problem: Problem, widths: Sequence[int], fill: Mapping[str, Factory], d: int, heads: int) -> TinyTransformer:
    return TinyTransformer(problem.output[-1], problem.input[0], d, heads, widths, fill)


def reference(net: Any, x: Tensor) -> Tensor:
    """A sequence, a position and a head at a time: a softmax over this position and the earlier ones."""
    embed = net.blocks[0][0]
    token, position = embed.token.weight.tolist(), embed.position.weight.tolist()
    d, out = len(token[0]), []
    for words in x.tolist():
        h = [[(token[word][i] + position[at][i]) / math.sqrt(d) for i in range(d)] for at, word in enumerate(words)]
        for k, block in enumerate(net.blocks):
            block = block[1] if k == 0 else block
            asked = [by_hand(block.qkv, by_hand(block.norm1, row)) for row in h]
            size = d // block.heads
            for at, row in enumerate(list(h)):
                mixed = []
                for first in range(0, d, size):
                    scores = []
                    for before in range(at + 1):
                        product = sum(asked[at][i] * asked[before][d + i] for i in range(first, first + size))
                        scores.append(math.exp(product / math.sqrt(size)))
                    for i in range(first, first + size):
                        read = sum(score * asked[before][2 * d + i] for before, score in enumerate(scores))
                        mixed.append(read / sum(scores))
                row = [a + b for a, b in zip(row, by_hand(block.out, mixed), strict=True)]
                fed = by_hand(block.down, by_hand(block.act, by_hand(block.up, by_hand(block.norm2, row))))
                h[at] = [a + b for a, b in zip(row, fed, strict=True)]
        out.append([by_hand(net.readout[1], by_hand(net.readout[0], row)) for row in h])
    return torch.tensor(out, dtype=torch.float64)


def cases() -> tuple[Case, ...]:
    return (
        Case(problem("tokens", (5,), (5, 7)), (6, 5), tokens(3, 5, 7), {"d": 8, "heads": 2}),
        Case(problem("tokens", (4,), (4, 3)), (9,), tokens(4, 4, 3), {"d": 6, "heads": 3}),
    )


PART = net(
    tiny_transformer,
    reference=reference,
    cases=cases,
    paper=Paper(
        title="Attention Is All You Need",
        authors="Ashish Vaswani, Noam Shazeer, Niki Parmar, Jakob Uszkoreit, Llion Jones, Aidan N. Gomez, Lukasz Kaiser,"
        " Illia Polosukhin",
        year=2017,
        arxiv="1706.03762",
    ),
    takes=frozenset({"tokens"}),
    places=("activation", "mlp", "norm", "layer", "head"),
    tags=Tags(causal=True),
    options=(
        Option("d", 32, "features of a position", bounds=(0, 2**20)),
        Option("heads", 2, "heads of attention; they divide d", bounds=(0, 2**20)),
    ),
    deviations=(
        "the decoder alone, with norms before attention and the feed-forward map, as in GPT-2",
        "learnt positions in place of sines, embeddings scaled by 1 / sqrt(d), no dropout",
    ),
)
