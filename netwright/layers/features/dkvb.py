"""Discrete key-value bottleneck: every head fetches the learnt value of the nearest of its fixed keys (Träuble et al., 2023).

A head for features that don't change, from an encoder that is frozen: what is learnt from one input changes the values of
the keys next to it alone.

Shape suffixes: B rows, I inputs, O outputs, C heads, K keys a head, D size of a key.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.part import Claim, Option, Paper
from netwright.layers._kind import Layer, Tags, layer
from netwright.tensor.modules import Change, drawn
from netwright.tensor.precision import full_precision

CHUNK = 2**16  # keys whose distances are held at once, for every row


@final
class KeyValueBottleneck(Layer):
    """y = mean_c v_(c, k_c), k_c the nearest of keys_c to R_c x in Euclidean distance; (..., d_in) -> (..., d_out).

    R_c (d_key, d_in): fixed, its rows uniform on the unit sphere. keys_c (keys, d_key): fixed, drawn from N(0, 1) until
    `place_keys` puts them where inputs lie, which is to be done before training. v (heads, keys, d_out): learnt, 0 at
    first. Only fetched values get a gradient, and they are fetched without regard to how near the key is: the gradient
    by x is 0.
    """

    projection: Tensor  # (C, D, I): R
    keys: Tensor  # (C, K, D)

    def __init__(self, d_in: int, d_out: int, *, heads: int = 32, keys: int = 64, d_key: int = 8) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.empty(heads, keys, d_out))
        self.register_buffer("projection", torch.empty(heads, d_key, d_in))
        self.register_buffer("keys", torch.empty(heads, keys, d_key))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        self.values.zero_()
        for t in (self.projection, self.keys):
            t.normal_(generator=generator)
        self.projection.copy_(F.normalize(self.projection, dim=2))

    def _project(self, x_BI: Tensor) -> Tensor:
        """R_c x for all heads (C, B, D), one product. The choice has no derivative, so none is followed."""
        r_CDI = self.projection.to(x_BI.dtype)
        h_BCD = F.linear(x_BI.detach(), r_CDI.flatten(0, 1)).unflatten(1, r_CDI.shape[:2])
        return h_BCD.transpose(0, 1)

    def _nearest(self, h_CBD: Tensor, keys_CKD: Tensor) -> Tensor:
        """Numbers (C, B) of the nearest keys: the smallest |k|^2 / 2 - h . k, of a number of heads at a time."""
        step, found = max(1, CHUNK // keys_CKD.shape[1]), []
        for h, k in zip(h_CBD.split(step), keys_CKD.to(h_CBD.dtype).split(step), strict=True):
            half_CK = 0.5 * k.square().sum(2)
            found.append((half_CK[:, None] - h @ k.transpose(1, 2)).argmin(2))
        return torch.cat(found)

    def _choose(self, x_BI: Tensor) -> Tensor:
        with full_precision(x_BI):  # rounded distances would choose other keys
            return self._nearest(self._project(x_BI), self.keys)

    def fetched(self, x: Tensor) -> Tensor:
        """The numbers of the keys whose values inputs x (..., d_in) fetch: (..., heads)."""
        self.inner(x)
        rows = x.reshape(-1, x.shape[-1])
        return self._choose(rows if rows.dtype == torch.float64 else rows.float()).T.view(*x.shape[:-1], -1)

    @torch.no_grad()
    def place_keys(
        self,
        x: Tensor,
        *,
        passes: int = 10,
        batch: int = 256,
        decay: float = 0.95,
        dead: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> float:
        """Put the keys where the inputs x (..., d_in) lie, labels unseen: k-means with moving averages. Values stay.

        Keys start at inputs. In every batch of every pass a key moves to the quotient of moving averages, of the inputs
        nearest to it over their number, old ones fading by `decay`. A key whose average number falls below `dead` times
        that of all keys alike starts anew at an input of the batch. generator: a CPU one; by default the same draws
        every time. Returns the mean squared distance of the inputs to their keys after it. Raises BadInput where x doesn't
        fit, is empty or isn't finite, or a setting is out of range.
        """
        self.inner(x)
        rows = x.detach().reshape(-1, x.shape[-1])
        rows = rows if rows.dtype == torch.float64 else rows.float()
        if not len(rows) or not bool(rows.isfinite().all()):
            raise BadInput(f"layer/dkvb: place_keys needs finite inputs, one at least; given shape {tuple(x.shape)}")
        if passes < 0 or batch < 1 or not 0 <= decay < 1 or not 0 <= dead < 1:
            given = f"passes={passes!r}, batch={batch!r}, decay={decay!r}, dead={dead!r}"
            raise BadInput(f"layer/dkvb: {given}; allowed: passes >= 0, batch >= 1, decay and dead from 0 to below 1")
        draw = generator or torch.Generator().manual_seed(0)
        h_CND = self._project(rows).contiguous()
        c, n, d = h_CND.shape
        k = self.keys.shape[1]
        batch = min(batch, n)
        usual = batch / k  # inputs a key gets of a batch where all keys are alike

        def sample(h: Tensor) -> Tensor:
            index = torch.stack([torch.randperm(max(k, h.shape[1]), generator=draw)[:k] % h.shape[1] for _ in range(c)])
            return h.gather(1, index.to(h.device)[..., None].expand(c, k, d))

        keys, number = sample(h_CND), h_CND.new_full((c, k), usual)
        total = keys * usual
        for _ in range(passes):
            order = torch.randperm(n, generator=draw).to(h_CND.device)
            for part in order[: n - n % batch].split(batch):
                h = h_CND[:, part]
                near = self._nearest(h, keys)
                sums = torch.zeros_like(keys).scatter_add_(1, near[..., None].expand_as(h), h)
                counts = torch.zeros_like(number).scatter_add_(1, near, torch.ones_like(h[..., 0]))
                total, number = torch.lerp(sums, total, decay), torch.lerp(counts, number, decay)
                gone = number < dead * usual
                number = torch.where(gone, usual, number)
                total = torch.where(gone[..., None], sample(h) * usual, total)
                keys = total / number[..., None]
        self.keys.copy_(keys)
        near = self._nearest(h_CND, keys)
        return float((h_CND - keys.gather(1, near[..., None].expand_as(h_CND))).square().sum(2).mean())

    def compute(self, x_BI: Tensor) -> Tensor:
        near_CB = self._choose(x_BI)
        y_BO = self.values.gather(1, near_CB[..., None].expand(-1, -1, self.values.shape[2])).mean(0)
        return y_BO + 0 * x_BI[:, :1].to(y_BO.dtype)  # a gradient of 0 for what comes before, rather than none


def reference(layer: Any, x_BI: Tensor) -> Tensor:
    """Row by row and head by head, with all distances written out."""
    heads, y = len(layer.keys), torch.zeros(len(x_BI), layer.values.shape[2], dtype=torch.float64)
    for b, row in enumerate(x_BI.tolist()):
        for c in range(heads):
            h = [sum(r * v for r, v in zip(line, row, strict=True)) for line in layer.projection[c].tolist()]
            distances = [math.dist(h, key) for key in layer.keys[c].tolist()]
            y[b] += layer.values[c, distances.index(min(distances))].double() / heads
    return y


def _filled(rows: int = 9, heads: int = 6, keys: int = 7) -> tuple[Any, Tensor]:
    """A layer with values that are not 0, and inputs."""
    net, g = drawn(KeyValueBottleneck, 5, 3, heads=heads, keys=keys, d_key=4), torch.Generator().manual_seed(0)
    with torch.no_grad():
        net.values.normal_(generator=g)
    return net, torch.randn(rows, 5, generator=g, dtype=torch.float64)


def claim_sparse() -> bool:
    """One input sends a gradient to exactly one value a head, the one it fetches."""
    net, x = _filled()
    for row in x:
        net.zero_grad()
        net(row).square().sum().backward()
        touched = net.values.grad.abs().sum(2) > 0
        if not torch.equal(touched.nonzero()[:, 1], net.fetched(row)) or int(touched.sum()) != 6:
            return False
    return True


def claim_local() -> bool:
    """A step of gradient descent leaves every other value as it was, to the last bit, and no key or projection moves."""
    net, x = _filled(3)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    net(x).square().sum().backward()
    with torch.no_grad():
        net.values -= 0.3 * net.values.grad
    fetched = torch.zeros(6, 7, dtype=torch.bool)
    fetched[torch.arange(6), net.fetched(x)] = True
    same = (net.values == before["values"]).all(2)
    return torch.equal(same, ~fetched) and all(torch.equal(getattr(net, n), before[n]) for n in ("keys", "projection"))


def claim_permute() -> bool:
    """Keys permuted together with their values change nothing."""
    net, x = _filled()
    before = net(x)
    with torch.no_grad():
        for c in range(6):
            order = torch.randperm(7, generator=torch.Generator().manual_seed(c))
            net.keys[c], net.values[c] = net.keys[c, order].clone(), net.values[c, order].clone()
    return torch.equal(net(x), before)


def claim_chunks() -> bool:
    """Searched some heads at a time, the keys are the nearest by all distances written out."""
    net, x = _filled(4, heads=3, keys=CHUNK // 2 + 1)
    h = torch.einsum("bi,cdi->cbd", x, net.projection)
    wanted = torch.stack([torch.cdist(a, k).argmin(1) for a, k in zip(h, net.keys, strict=True)], 1)
    return torch.equal(net.fetched(x), wanted)


def claim_place() -> bool:
    """Placed keys tell groups of inputs apart in every head, as near to them as the inputs of a group are to one another."""

    def placed() -> tuple[Any, float]:
        net = drawn(KeyValueBottleneck, 8, 3, heads=3, keys=12, d_key=6)
        return net, net.place_keys(x, batch=80)

    g = torch.Generator().manual_seed(3)
    centres = 9 * torch.randn(4, 1, 8, generator=g, dtype=torch.float64)
    x = centres + 0.1 * torch.randn(4, 60, 8, generator=g, dtype=torch.float64)
    net, left = placed()
    for head in net.fetched(x).unbind(2):
        groups = [set(row.tolist()) for row in head]
        if sum(map(len, groups)) != len(set().union(*groups)):
            return False
    again, same = placed()
    return left < 6 * 0.1**2 and same == left and torch.equal(again.keys, net.keys)


PART = layer(
    KeyValueBottleneck,
    name="dkvb",
    reference=reference,
    formula=r"\frac{1}{C} \sum_c v_{c, k_c},\quad k_c = \arg\min_k \|R_c x - \kappa_{c,k}\|",
    paper=Paper("dkvb"),
    tags=Tags(slot="head", nonlinear=True, smooth=False, delicate=True),
    options=(
        Option("heads", 32, "codebooks, each with a projection of its own; 256 in the paper's runs", bounds=(0, 10**6)),
        Option("keys", 64, "keys of a head; 4096 in the paper's runs", bounds=(0, 10**7)),
        Option("d_key", 8, "size of a key; 14 in the paper's runs", bounds=(0, 10**5)),
    ),
    toy={"heads": 5, "keys": 7, "d_key": 4},
    settings=({"heads": 1}, {"d_key": 1, "keys": 9}),
    changes=(Change("place_keys", lambda net, x: net.place_keys(x, passes=2, batch=4)),),
    parameters="heads * keys * d_out",
    products="2 * heads * d_key * (d_in + keys)",
    elementwise="heads * (2.5 * keys + d_out) + d_out",
    claims=(
        Claim("sparse", "one input sends a gradient to one value a head", check=claim_sparse),
        Claim("local", "values that aren't fetched don't change, and keys never do", check=claim_local),
        Claim("permute", "keys and values can be permuted together", check=claim_permute),
        Claim("chunks", "a search in pieces finds the nearest keys", check=claim_chunks),
        Claim("place", "keys find where inputs lie, without labels", check=claim_place),
    ),
    deviations=(
        "keys move in place_keys alone; those of the code move in every forward, evaluation too, until they are frozen",
        "place_keys starts keys, and averages consistent with them, at inputs; the code starts keys from N(0, 1), and averages"
        " at the keys and at no inputs, so that a first batch throws keys far out",
        "a key that starts anew takes its averages along; in the code the next batch mixes it with its old ones",
        "values start at 0, as in the experiments' code; the module's own are drawn from N(0, 1)",
        "one value a head is fetched, the nearest; the code can sum several, or draw by distance",
        "the decoder is the mean over heads, which the paper's class-incremental runs have; another can follow the layer",
    ),
)
