"""MLP-KAN: a soft mixture of experts, half of them MLPs and half KANs (He et al., 2024).

    logits[n, es] = x_n . E_es,   z_es = sum_n D[n, es] x_n,   y_n = sum_es C[n, es] expert_e(z_es)

with S slots an expert, D the softmax of the logits over the tokens n, and C that over all slots. Every expert sees S mixtures
of the tokens of a sequence, and every token takes a mixture of what all experts say. An MLP expert is W_2 SiLU(W_1 z + b_1)
+ b_2; a KAN expert is two layers of FasterKAN, each u = LN(z), phi_m(u) = 1 - tanh((u - g_m) / 0.33)^2 for 8 centres g_m on
[-2, 2], then a sum over inputs and centres. Experts of a kind are one batched product.

Shape suffixes: B rows of the batch, N tokens, I inputs, O outputs, E experts, S slots of one, M centres.
"""

from __future__ import annotations

import math
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.part import Claim, Option, Paper
from netwright.layers._kind import Layer, Tags, layer, product, uniform_
from netwright.tensor.modules import drawn

CENTRES, REACH, WIDTH = 8, 2.0, 0.33


def switches(z_EBI: Tensor, weight_EI: Tensor, bias_EI: Tensor) -> Tensor:
    """phi_m(LN(z)), every expert with a layer norm of its own: (E, B, M I)."""
    u = F.layer_norm(z_EBI, z_EBI.shape[-1:]) * weight_EI[:, None] + bias_EI[:, None]
    step = 2 * REACH / (CENTRES - 1) / WIDTH
    centres_M = torch.arange(CENTRES, dtype=u.dtype, device=u.device) * step
    return (1 - torch.tanh(((u + REACH) / WIDTH)[..., None, :] - centres_M[:, None]).square()).flatten(-2)


@final
class MlpKan(Layer):
    """A soft mixture of experts/2 MLPs and experts/2 KANs; (..., L, d_in) -> (..., L, d_out), of any length L.

    slots: mixtures of tokens an expert sees; hidden: inner width of an MLP, that of a KAN is half of it; 0: d_in. Raises
    BadInput for an odd number of experts, and where the KANs would have no width.
    """

    no_decay = frozenset({"norm_weight", "norm_bias", "inner_weight", "inner_bias"})

    def __init__(self, d_in: int, d_out: int, *, experts: int = 8, slots: int = 1, hidden: int = 0) -> None:
        super().__init__()
        wide = hidden or d_in
        if experts % 2:
            raise BadInput(f"layer/mlp-kan: experts={experts}; half of them are MLPs and half KANs: give an even number")
        if wide < 2:
            raise BadInput(f"layer/mlp-kan: hidden={hidden} with d_in={d_in}; a KAN has half of it, so give at least 2")
        half, narrow = experts // 2, wide // 2
        self.experts, self.slots = experts, slots

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(*shape))

        self.router = parameter(experts * slots, d_in)
        self.up, self.up_bias = parameter(half, wide, d_in), parameter(half, wide)
        self.down, self.down_bias = parameter(half, d_out, wide), parameter(half, d_out)
        self.norm_weight, self.norm_bias = parameter(half, d_in), parameter(half, d_in)
        self.first = parameter(half, narrow, CENTRES * d_in)
        self.inner_weight, self.inner_bias = parameter(half, narrow), parameter(half, narrow)
        self.second = parameter(half, d_out, CENTRES * narrow)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Slots ~ N(0, 1 / d_in); MLPs as nn.Linear; KANs of Xavier, as FasterKAN's, with layer norms of weight 1, bias 0."""
        self.router.normal_(0, 1 / math.sqrt(self.router.shape[1]), generator=generator)
        for weight, bias in ((self.up, self.up_bias), (self.down, self.down_bias)):
            for p in (weight, bias):
                uniform_(p, 1 / math.sqrt(weight.shape[2]), generator)
        for weight in (self.first, self.second):
            uniform_(weight, math.sqrt(6 / sum(weight.shape[1:])), generator)
        for ones, zeros in ((self.norm_weight, self.norm_bias), (self.inner_weight, self.inner_bias)):
            ones.fill_(1.0)
            zeros.zero_()

    @property
    def quantities(self) -> dict[str, float]:
        return {**super().quantities, "hidden": self.up.shape[1], "narrow": self.first.shape[1], "centres": CENTRES}

    def routes(self, x_BNI: Tensor) -> tuple[Tensor, Tensor]:
        """(D, C), each (B, N, E S): how tokens are dispatched to slots, and slots combined for tokens."""
        logits = product(x_BNI, self.router)
        return logits.softmax(1), logits.softmax(2)

    def answers(self, z_BSI: Tensor) -> Tensor:
        """What every expert makes of its slots: (B, E S, I) -> (B, E S, O)."""
        batch, half = z_BSI.shape[0], self.experts // 2
        z_EBI = z_BSI.unflatten(1, (self.experts, self.slots)).transpose(0, 1).flatten(1, 2)
        h = F.silu(z_EBI[:half] @ self.up.mT + self.up_bias[:, None])
        mlps = h @ self.down.mT + self.down_bias[:, None]
        k = switches(z_EBI[half:], self.norm_weight, self.norm_bias) @ self.first.mT
        kans = switches(k, self.inner_weight, self.inner_bias) @ self.second.mT
        both_EBO = torch.cat((mlps, kans.to(mlps.dtype)))
        return both_EBO.unflatten(1, (batch, self.slots)).transpose(0, 1).flatten(1, 2)

    def compute(self, x_BNI: Tensor) -> Tensor:
        dispatch, combine = self.routes(x_BNI)
        x = x_BNI.to(self.router.dtype)
        answers = self.answers(dispatch.to(x.dtype).mT @ x)
        return combine.to(answers.dtype) @ answers


def reference(layer: Any, x_BNI: Tensor) -> Tensor:
    experts, slots = layer.options["experts"], layer.options["slots"]
    half, y = experts // 2, torch.zeros(*x_BNI.shape[:2], layer.down.shape[1], dtype=x_BNI.dtype)

    def softmax(row: list[float]) -> list[float]:
        top = max(row)
        total = sum(math.exp(v - top) for v in row)
        return [math.exp(v - top) / total for v in row]

    def kan_layer(z: list[float], weight: Tensor, scale: Tensor, shift: Tensor) -> list[float]:
        mean = sum(z) / len(z)
        root = math.sqrt(sum((v - mean) ** 2 for v in z) / len(z) + 1e-5)
        total = torch.zeros(len(weight), dtype=x_BNI.dtype)
        for i, v in enumerate(z):
            u = (v - mean) / root * float(scale[i]) + float(shift[i])
            for m in range(8):
                total += weight[:, m * len(z) + i] * (1 - math.tanh((u - (-2 + 4 * m / 7)) / 0.33) ** 2)
        return total.tolist()

    for b, x in enumerate(x_BNI):
        logits = [[float(token @ slot) for slot in layer.router] for token in x]
        combine = [softmax(row) for row in logits]
        answers = []
        for es in range(experts * slots):
            dispatch, e = softmax([row[es] for row in logits]), es // slots
            z = [sum(weight * float(token[i]) for weight, token in zip(dispatch, x, strict=True)) for i in range(x.shape[1])]
            if e < half:
                h = [
                    float(row @ torch.tensor(z, dtype=x.dtype) + own)
                    for row, own in zip(layer.up[e], layer.up_bias[e], strict=True)
                ]
                h = [v / (1 + math.exp(-v)) for v in h]
                answers.append(layer.down[e] @ torch.tensor(h, dtype=x.dtype) + layer.down_bias[e])
            else:
                k = kan_layer(z, layer.first[e - half], layer.norm_weight[e - half], layer.norm_bias[e - half])
                out = kan_layer(k, layer.second[e - half], layer.inner_weight[e - half], layer.inner_bias[e - half])
                answers.append(torch.tensor(out, dtype=x.dtype))
        for n, row in enumerate(combine):
            y[b, n] = sum(weight * answer for weight, answer in zip(row, answers, strict=True))
    return y


def _toy(**options: Any) -> tuple[Any, Tensor]:
    built = drawn(MlpKan, 6, 4, **{"experts": 4, "slots": 2, **options}).requires_grad_(False)
    return built, torch.randn(3, 7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def claim_routes() -> bool:
    """Over the tokens every slot takes shares that sum to 1; over the slots every token does."""
    mixture, x = _toy()
    dispatch, combine = mixture.routes(x)
    return all(
        bool((shares >= 0).all()) and float((shares.sum(dim) - 1).abs().max()) < 1e-12
        for shares, dim in ((dispatch, 1), (combine, 2))
    )


def claim_equivariant() -> bool:
    """Tokens in another order give their outputs in that order."""
    mixture, x = _toy()
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    return bool(torch.allclose(mixture(x[:, order]), mixture(x)[:, order], atol=1e-12))


def claim_alike() -> bool:
    """Where all experts and slots are alike, every token gets what one expert makes of one mixture of the tokens."""
    mixture, x = _toy()
    mixture.router.copy_(mixture.router[:1].expand_as(mixture.router))
    mixture.first.zero_()
    mixture.second.zero_()
    for p in (mixture.up, mixture.up_bias, mixture.down, mixture.down_bias):
        p.copy_(p[:1].expand_as(p))
    share = (x @ mixture.router[0]).softmax(1)
    hidden = F.silu(F.linear((share[..., None] * x).sum(1), mixture.up[0], mixture.up_bias[0]))
    one = F.linear(hidden, mixture.down[0], mixture.down_bias[0]) / 2  # the other half says 0
    return bool(torch.allclose(mixture(x), one[:, None].expand(-1, 7, -1), atol=1e-12))


def claim_awake() -> bool:
    """At the start, for tokens of unit variance, no slot hears one token alone, which logits of variance d_in would do."""
    built = drawn(MlpKan, 256, 4, experts=4)
    x = torch.randn(1, 64, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    most = built.routes(x)[0].amax(1)
    saturated = (16 * x @ built.router.T).softmax(1).amax(1)
    return float(most.max().detach()) < 0.5 < float(saturated.mean().detach())


PART = layer(
    MlpKan,
    name="mlp-kan",
    reference=reference,
    formula=r"y_n = \sum_{es} C_{n,es}\, f_e(\sum_{n'} D_{n',es}\, x_{n'})",
    paper=Paper("mlp-kan", equation="(10)"),
    tags=Tags(shape="sequence", nonlinear=True),
    toy={"experts": 4},
    options=(
        Option("experts", 8, "half of them MLPs, half KANs", bounds=(0, 10000)),
        Option("slots", 1, "mixtures of tokens that an expert sees", bounds=(0, 10000)),
        Option("hidden", 0, "inner width of an MLP, twice that of a KAN; 0: d_in", bounds=(-1, 1000000)),
    ),
    settings=({"experts": 2, "slots": 3, "hidden": 9},),
    parameters="experts * slots * d_in + experts / 2 * (hidden * (d_in + 1) + (hidden + 1) * d_out + 2 * d_in + 2 * narrow"
    " + centres * narrow * (d_in + d_out))",
    products="2 * length * experts * slots * (2 * d_in + d_out) + experts * slots * (hidden * (d_in + d_out)"
    " + centres * narrow * (d_in + d_out))",
    elementwise="experts * slots * (2 * length + hidden + (4 * centres + 6) * (d_in + narrow) / 2)",
    claims=(
        Claim("routes", "shares of tokens and of slots sum to 1", check=claim_routes),
        Claim("equivariant", "the order of tokens doesn't matter", check=claim_equivariant),
        Claim("alike", "equal experts are one expert of one mixture", check=claim_alike),
        Claim("awake", "the softmax isn't saturated at the start", check=claim_awake),
    ),
    deviations=(
        "dispatch is normalised over tokens, as in figure 2 and in soft mixtures of experts; equation (11) normalises it over"
        " experts and slots",
        "soft routing alone, that of section 4.1; the code routes each token to its top 2 experts",
        "slots are drawn with variance 1 / d_in; the gates of the code's hi_moe.py have variance 1, which saturates the softmax",
        "MLPs have SiLU, as in equation (5); the code takes timm's, with GELU",
        "d_out may differ from d_in",
    ),
)
