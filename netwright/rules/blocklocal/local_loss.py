"""Local losses: every block learns to predict the labels and to be similar where they agree (Nøkland and Eidnes, 2019).

Shape suffixes: B batch, K classes, D features; R_BB holds a similarity of every two examples of the batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import Misfit
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.engine.blocks import Blocks
from netwright.engine.rule import Rule, trainable
from netwright.engine.task import Problem
from netwright.rules._kind import Tags, rule
from netwright.rules._toy import Toy, gradients, linear_gradients, softmax_error
from netwright.rules.blocklocal._heads import Flat, Zeroed, map_readout

VALUES = 2048  # a map is averaged to at most this many before it predicts


def similarity(h: Tensor) -> Tensor:
    """Cosines of the centred rows of h (B, D); of more than three maps (B, C, H, W) their C standard deviations are the rows."""
    h = h.flatten(2).std(2) if h.dim() == 4 and h.shape[1] > 3 and h.shape[2] > 1 else h.flatten(1)
    h = h - h.mean(1, keepdim=True)
    h = h / (1e-8 + torch.linalg.vector_norm(h, dim=1, keepdim=True))  # its slope at 0 is 0, that of a root of squares is not
    return (h @ h.T).clamp(-1, 1)


def same(y_B: Tensor, classes: int, like: Tensor) -> Tensor:
    """The same of one-hot labels: 1 within a class, -1 / (K - 1) between two."""
    return torch.where(y_B[:, None] == y_B[None], 1.0, -1 / (classes - 1)).to(like.dtype)


@final
class LocalLoss(Rule):
    """L_k = (1 - beta) CE(decoder(h_k), y) + beta |R(transform(h_k)) - R(Y)|^2 / B^2; the next block reads h_k detached.

    R is `similarity`, transform a linear map (a 3 x 3 convolution of maps), decoder a linear map that starts at zero; both
    learn with their block. loss: "predsim" (both terms), "pred" or "sim" (one alone, unweighted). The readout learns CE
    on the last block, weighted as its decoder is; of maps it is a linear map of what the decoders read.
    """

    def __init__(self, net: Blocks, problem: Problem, loss: str = "predsim", beta: float = 0.99) -> None:
        super().__init__(net, problem)
        if problem.classes is None or len(problem.output) != 1:
            raise Misfit(
                f"local-loss compares one label an example, and this task's outputs are {problem.output}; choose another"
            )
        self.classes = problem.classes
        self.pred, self.sim = {"predsim": (1 - beta, beta), "pred": (1.0, 0.0), "sim": (1.0, 1.0)}[loss]
        flats = [Flat(shape, VALUES) for shape in net.shapes] if loss != "sim" else []
        self.decoders = nn.ModuleList(nn.Sequential(flat, Zeroed(flat.width, self.classes, bias=True)) for flat in flats)
        self.transforms = nn.ModuleList(transform(shape) for shape in net.shapes if loss != "pred")
        self.of_maps = map_readout(net, self.classes, VALUES)

    @property
    def readout(self) -> nn.Module:
        return self.net.readout if self.of_maps is None else self.of_maps

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.net.features(x)[-1])

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        h = x
        for k, block in enumerate(self.net.blocks):
            h = block(h.detach())
            terms = []
            if self.decoders:
                terms.append(self.pred * self.problem.loss(self.decoders[k](h), y))
            if self.transforms:
                r_BB = similarity(self.transforms[k](h))
                terms.append(self.sim * F.mse_loss(r_BB, same(y, self.classes, r_BB)))
            yield torch.stack(terms).sum()
        yield self.pred * self.problem.loss(self.readout(h.detach()), y)

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        own = [[block] for block in self.net.blocks]
        for heads in (self.decoders, self.transforms):
            for unit, head in zip(own, heads, strict=False):
                unit.append(head)
        return [trainable(*unit) for unit in own] + [trainable(self.readout)]


def transform(shape: tuple[int, ...]) -> nn.Module:
    """What the similarity is taken of: a map of the block's output to its own shape, without bias."""
    if len(shape) == 3:
        return nn.Conv2d(shape[0], shape[0], 3, padding=1, bias=False)
    return nn.Linear(shape[-1], shape[-1], bias=False)


def reference(rule: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """With R = N N^T, N = Z / |Z| and Z = h V^T centred: dN = 4 (R - R_Y) N / B^2 and dZ = dN / |Z| less its part along Z."""
    grads: dict[str, Tensor] = {}
    one_hot = torch.eye(rule.classes, dtype=x.dtype)[y]
    centred = one_hot - 1 / rule.classes
    wanted = centred @ centred.T * rule.classes / (rule.classes - 1)
    for k, block in enumerate(rule.net.blocks):
        h = (x @ block[0].weight.T + block[0].bias).clamp(min=0)
        dh = torch.zeros_like(h)
        if len(rule.decoders):
            decoder = rule.decoders[k][1]
            e_BK = rule.pred * softmax_error(h @ decoder.weight.T + decoder.bias, y)
            grads |= linear_gradients(f"decoders.{k}.1", e_BK, h)
            dh += e_BK @ decoder.weight
        if len(rule.transforms):
            v_DD = rule.transforms[k].weight
            z = h @ v_DD.T
            z = z - z.mean(1, keepdim=True)
            length = z.square().sum(1, keepdim=True).sqrt()
            n = z / (length + 1e-8)
            dn = 4 * rule.sim * (n @ n.T - wanted) @ n / len(x) ** 2
            dz = dn / (length + 1e-8) - z * (z * dn).sum(1, keepdim=True) / (length * (length + 1e-8) ** 2)
            dz = dz - dz.mean(1, keepdim=True)
            grads[f"transforms.{k}.weight"] = dz.T @ h
            dh += dz @ v_DD
        grads |= linear_gradients(f"net.blocks.{k}.0", dh * (h > 0), x)
        x = h
    readout = rule.net.readout
    return grads | linear_gradients("net.readout", rule.pred * softmax_error(x @ readout.weight.T + readout.bias, y), x)


def claim_labels() -> bool:
    """The target is the similarity of one-hot labels."""
    y = torch.tensor([0, 3, 1, 0, 2, 3])
    one_hot = (y[:, None] == torch.arange(4)).double()
    return torch.allclose(same(y, 4, one_hot), similarity(one_hot), atol=1e-7)


def claim_decoder() -> bool:
    """With decoders that have left zero the update is the reference's still; at zero they send nothing to the blocks."""
    toy = Toy()
    x, y = toy.batch()
    bound: Any = toy.bind(LocalLoss, loss="pred")
    at_zero = gradients(bound, x, y)
    with torch.no_grad():
        for decoder in bound.decoders:
            decoder[1].weight.copy_(torch.linspace(-1, 1, decoder[1].weight.numel()).view_as(decoder[1].weight))
        wanted = reference(bound, x, y)
    got = gradients(bound, x, y)
    silent = all(not g.any() for name, g in at_zero.items() if name.startswith("net.blocks"))
    return silent and all(torch.allclose(got[name], g, rtol=1e-10, atol=1e-14) for name, g in wanted.items())


def claim_mixture() -> bool:
    """predsim's update is (1 - beta) of pred's and beta of sim's."""
    toy = Toy()
    x, y = toy.batch()
    both, pred, sim = (gradients(toy.bind(LocalLoss, loss=loss), x, y) for loss in ("predsim", "pred", "sim"))
    blocks = [name for name in both if name.startswith("net.blocks")]
    return all(torch.allclose(both[name], 0.01 * pred[name] + 0.99 * sim[name], rtol=1e-10, atol=1e-14) for name in blocks)


PART = rule(
    LocalLoss,
    reference=reference,
    formula=r"L_k = (1 - \beta)\,\mathrm{CE}(D_k h_k, y) + \beta\, \|R(V_k h_k) - R(Y)\|^2 / B^2",
    paper=Paper(
        title="Training Neural Networks with Local Error Signals",
        authors="Arild Nøkland, Lars Hiller Eidnes",
        year=2019,
        arxiv="1901.06656",
        code="anokland/local-loss",
    ),
    tags=Tags(family="local", local=True, needs=frozenset({"labels"})),
    options=(
        Option("loss", "predsim", "prediction and similarity, or one of them", allowed=("predsim", "pred", "sim")),
        Option("beta", 0.99, "weight of similarity in predsim", bounds=(0.0, 1.0)),
    ),
    claims=(
        Claim("labels", "similarity matching asks for the similarities of one-hot labels", check=claim_labels),
        Claim("decoder", "the prediction loss is that of a linear decoder that starts at zero", check=claim_decoder),
        Claim("mixture", "the two losses are combined by beta", check=claim_mixture),
        Claim(
            "backprop",
            "layer-wise training can approach the state of the art",
            where="abstract",
            protocol=Protocol(task="digits", against="rule/backprop", expect="not worse"),
        ),
        Claim(
            "pred",
            "combined, the losses do better than prediction alone",
            where="README, MNIST",
            protocol=Protocol(task="digits", against="rule/local-loss:loss=pred", expect="better", match="none"),
        ),
    ),
    deviations=(
        "the prediction of maps reads the last block's, flattened as for its loss; the paper's nets end in dense layers",
        "the blocks are the host's own; the paper's are one layer each, with batch normalisation, leaky ReLU and dropout",
        "the readout starts as the host draws it, not at zero",
        "a map is averaged to at most 2048 values before it predicts, halving both sides at once",
        "of the losses without labels, none",
    ),
)
