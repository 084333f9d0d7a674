"""Counter-current learning: a feedback net runs from the labels down, and paired levels learn from each other (Kao, Hariharan).

Shape suffixes: B batch, K classes, D features of a level.
"""

from __future__ import annotations

import math
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
from netwright.rules._toy import Toy, forward_by_hand, gradients, linear_gradients, softmax_error

SCALE = 0.5 * 256  # of the released loss: its loss_scale times a constant


@final
class CounterCurrent(Rule):
    """f_k = block_k(sg(f_(k-1))) from f_0 = x; g_k = U_k sg(g_(k+1)) from the identity, one row a class; ELU but in g_0.

    L_k = MSE(f_k g_k^T, one-hot(y)) * 128 / D for every pair of levels, the input's too; the readout has the loss of the
    task. loss="normalised" is the released convolutional script's: rows at unit length, and two terms that push rows of
    one side apart; "released" takes it, too, on hosts of maps. loss="distance" is the paper's prose: the squared distance
    of f_k and the g_k of the right class, over D.
    A level's block and its U_k learn from that level's loss alone (local=False: it depends on the feedback weights above).
    The U_k see one row a class, whatever the batch.
    Raises Misfit where a level is neither a vector nor a stack of maps.
    """

    def __init__(self, net: Blocks, problem: Problem, loss: str = "released") -> None:
        super().__init__(net, problem)
        shapes = [problem.input, *net.shapes]
        self.loss = "normalised" if loss == "released" and len(net.shapes[0]) == 3 else loss
        if bad := [shape for shape in shapes if len(shape) not in (1, 3)]:
            raise Misfit(
                f"counter-current mirrors vectors (D,) and maps (C, H, W), not a level {bad[0]}; use an Mlp or a ConvNet"
            )
        down = [Down(upper, lower, act=k > 0) for k, (lower, upper) in enumerate(zip(shapes, shapes[1:], strict=False))]
        self.feedback = nn.ModuleList([*down, Down((problem.output[-1],), shapes[-1], act=True, spread=True)])

    def codes(self, like: Tensor) -> list[Tensor]:
        """g_0 .. g_n, each (K, *shape): what the feedback net makes of every class."""
        g, found = torch.eye(self.problem.output[-1], dtype=like.dtype, device=like.device), []
        for down in reversed(self.feedback):
            g = down(g.detach())
            found.append(g)
        return found[::-1]

    def pair(self, f: Tensor, g: Tensor, target_BK: Tensor) -> Tensor:
        """The loss of one level."""
        f_BD, g_KD = f.flatten(1), g.flatten(1)
        d = f_BD.shape[1]
        if self.loss == "released":
            return F.mse_loss(f_BD @ g_KD.T, target_BK) * SCALE / d
        if self.loss == "normalised":
            f_BD, g_KD = F.normalize(f_BD, eps=1e-8), F.normalize(g_KD, eps=1e-8)
            return F.mse_loss(f_BD @ g_KD.T, target_BK) + 0.5 * (apart(f_BD) + apart(g_KD))
        return (f_BD - target_BK @ g_KD).square().sum(1).mean() / d

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        assert self.problem.encode is not None  # a problem that gives labels encodes them
        target, codes, f = self.problem.encode(y).to(x.dtype), self.codes(x), x
        yield self.pair(f, codes[0], target)
        for block, g in zip(self.net.blocks, codes[1:], strict=True):
            f = block(f.detach())
            yield self.pair(f, g, target)
        yield self.problem.loss(self.net.readout(f.detach()), y)

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        first, *others = self.feedback
        levels = [trainable(block, down) for block, down in zip(self.net.blocks, others, strict=True)]
        return [trainable(first), *levels, trainable(self.net.readout)]


def apart(rows: Tensor) -> Tensor:
    """Mean squared difference of the rows' inner products and the identity."""
    return F.mse_loss(rows @ rows.T, torch.eye(len(rows), dtype=rows.dtype, device=rows.device))


@final
class Down(nn.Module):
    """One step of the feedback net, from an upper level's shape to the lower one's, without bias.

    Maps to maps: nearest upsampling, then a 3 x 3 convolution; otherwise linear. spread: maps get one value a channel,
    the same at every place, which mirrors a readout that averages.
    """

    def __init__(self, upper: tuple[int, ...], lower: tuple[int, ...], act: bool, spread: bool = False) -> None:
        super().__init__()
        self.lower, self.act = lower, act
        self.spread = spread and len(lower) == 3
        self.maps = len(upper) == 3 and len(lower) == 3
        wide = lower[0] if self.spread else math.prod(lower)
        self.map = (
            nn.Conv2d(upper[0], lower[0], 3, 1, 1, bias=False) if self.maps else nn.Linear(math.prod(upper), wide, bias=False)
        )

    def forward(self, g: Tensor) -> Tensor:
        if self.maps:
            g = self.map(F.interpolate(g, size=self.lower[1:], mode="nearest"))
        elif self.spread:
            g = self.map(g)[:, :, None, None].expand(-1, *self.lower)
        else:
            g = self.map(g.flatten(1)).unflatten(1, self.lower)
        return F.elu(g) if self.act else g


def reference(rule: Any, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """S = f g^T; E = 256 (S - Y) / (B K D); df = E g, dg = E^T f. Distance: df = 2 (f - Y g) / (B D), dg = -Y^T df.

    Normalised: d(f') = 2 (S - Y) g' / (B K) + 2 (f' f'^T - I) f' / B^2 of the unit rows f', and df = (1 - f' f'^T) d(f') / |f|.
    """

    def through(unit: Tensor, d: Tensor, length: Tensor) -> Tensor:
        return (d - unit * (unit * d).sum(1, keepdim=True)) / length

    *hidden, out = forward_by_hand(rule.net, x)
    k = out.shape[1]
    y_BK, g = torch.eye(k, dtype=x.dtype)[y], torch.eye(k, dtype=x.dtype)
    grads = linear_gradients("net.readout", softmax_error(out, y), hidden[-1])
    for level in range(len(hidden) - 1, -1, -1):
        path, f = f"feedback.{level}.map", hidden[level]
        upper, a = g, g @ rule.get_parameter(f"{path}.weight").T
        g = torch.where(a > 0, a, a.exp() - 1) if level else a
        if rule.loss == "released":
            e_BK = 256 * (f @ g.T - y_BK) / (f.numel() * k)
            df, dg = e_BK @ g, e_BK.T @ f
        elif rule.loss == "normalised":
            long_f, long_g = f.norm(dim=1, keepdim=True).clamp(min=1e-8), g.norm(dim=1, keepdim=True).clamp(min=1e-8)
            uf, ug, b = f / long_f, g / long_g, len(f)
            e_BK = 2 * (uf @ ug.T - y_BK) / (b * k)
            df = through(uf, e_BK @ ug + 2 * (uf @ uf.T - torch.eye(b)) @ uf / b**2, long_f)
            dg = through(ug, e_BK.T @ uf + 2 * (ug @ ug.T - torch.eye(k)) @ ug / k**2, long_g)
        else:
            df = 2 * (f - y_BK @ g) / f.numel()
            dg = -y_BK.T @ df
        grads[f"{path}.weight"] = (dg * torch.where(a > 0, 1.0, a.exp()) if level else dg).T @ upper
        if level:
            grads |= linear_gradients(f"net.blocks.{level - 1}.0", df * (f > 0), hidden[level - 1])
    return grads


def claim_transport() -> bool:
    """Other forward weights above the first block leave its update as it is, to the bit."""
    toy = Toy()
    ccl, (x, y) = toy.bind(CounterCurrent), toy.batch()
    before = gradients(ccl, x, y)
    with torch.no_grad():
        for p in (*ccl.net.blocks[1].parameters(), *ccl.net.readout.parameters()):
            p.mul_(-3.0)
    after = gradients(ccl, x, y)
    name = "net.blocks.0.0.weight"
    return torch.equal(after[name], before[name]) and not torch.equal(after["net.readout.weight"], before["net.readout.weight"])


def claim_relabelled() -> bool:
    """Classes in another order, and the two class-wise weights with them, give hidden blocks the same update."""
    toy = Toy()
    ccl, (x, y) = toy.bind(CounterCurrent), toy.batch()
    before, order = gradients(ccl, x, y), torch.tensor([2, 0, 1])
    with torch.no_grad():
        ccl.get_parameter("feedback.2.map.weight").copy_(ccl.get_parameter("feedback.2.map.weight")[:, order])
    after = gradients(ccl, x, order.argsort()[y])
    hidden = [name for name in before if name.startswith("net.blocks")]
    return all(torch.allclose(after[name], before[name], rtol=1e-12, atol=1e-15) for name in hidden)


PART = rule(
    CounterCurrent,
    reference=reference,
    formula=r"L_k = \frac{128}{D_k}\,\mathrm{MSE}\left(f_k g_k^\top, Y\right),\quad"
    r" f_k = b_k(\mathrm{sg}(f_{k-1})),\quad g_k = \mathrm{ELU}\left(U_k\,\mathrm{sg}(g_{k+1})\right),\quad g_{n+1} = I",
    paper=Paper("counter-current"),
    tags=Tags(
        family="feedback",
        needs=frozenset({"blocks", "labels"}),
    ),
    options=(
        Option(
            "loss",
            "released",
            "the released scripts' contrastive losses, or the prose's squared distance",
            allowed=("released", "normalised", "distance"),
        ),
    ),
    claims=(
        Claim(
            "transport",
            "no weight transport: a block's update does not depend on the forward weights above it",
            where="abstract",
            check=claim_transport,
        ),
        Claim("relabelled", "the names of the classes mean nothing to the hidden blocks", check=claim_relabelled),
        Claim(
            "learns",
            "hidden blocks learn from the feedback net",
            where="abstract",
            protocol=Protocol(task="digits", against="rule/frozen-hidden", expect="better"),
        ),
        Claim(
            "plausible",
            "comparable with other biologically plausible algorithms",
            where="abstract",
            protocol=Protocol(task="digits", against="rule/dfa", expect="not worse"),
        ),
    ),
    deviations=(
        "each level steps with the task's optimizer (Adam at the task's rates), not SGD at rate 1 with gradients clipped to"
        " norm 1; under Adam the factor on a level's loss hardly matters",
        "the forward activation, norm and biases are the host's, not ELU without biases; the feedback net uses ELU throughout",
        "a residual host block is one level, mirrored by one upsampling and one convolution",
        "the released convolutional script's error filter and gradient centralisation are left out",
        "the scale of loss='distance' is ours; nothing keeps both nets from agreeing on a constant, and on digits they do:"
        " it stays at chance",
        "the feedback net's rows, one a class and step, are not counted in the declared forwards",
    ),
)
