"""Hypercomplex layers with learnt rules: weights that are sums of Kronecker products (Grassucci et al., 2021).

W = sum_i A_i (x) F_i with n rules A_i (n, n) and n blocks F_i (d_out / n, d_in / n, *kernel): of quaternions, for n = 4 and
the rules of their product, but here the rules are learnt. About 1/n of the parameters of the plain layer. The blocks are
kept one below the other, as the weights of a grouped convolution are, (d_out, d_in / n, *kernel): with a dimension more,
module.to(memory_format=torch.channels_last) would refuse them.

W is built anew in every forward by one small matrix product, and is never kept. Applying the factors to x instead saves
nothing: it costs 2 d_out (d_in + n^2) operations a row or more, where W itself costs 2 d_out d_in.

Shape suffixes: B rows, N rules, P and Q rows and columns of a rule, O and R those of a block, K places of a kernel.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.layers._kind import Layer, Tags, layer, per_axis, product, uniform_
from netwright.tensor.modules import drawn

CONVOLVE: dict[int, Any] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
#: The rules of complex numbers and of quaternions: A[i] takes the coefficients of z to those of (unit i) z.
COMPLEX = [[[1, 0], [0, 1]], [[0, -1], [1, 0]]]
HAMILTON = [
    [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
    [[0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]],
    [[0, 0, -1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, -1, 0, 0]],
    [[0, 0, 0, -1], [0, 0, -1, 0], [0, 1, 0, 0], [1, 0, 0, 0]],
]


def kronecker_sum(a_NPQ: Tensor, f: Tensor) -> Tensor:
    """sum_i A_i (x) F_i: (P O, Q R, *K), for a (N, P, Q) and f (N O, R, *K)."""
    (n, p, q), (rows, r, *k) = a_NPQ.shape, f.shape
    w = (a_NPQ.reshape(n, p * q).T @ f.reshape(n, -1)).view(p, q, rows // n, r, *k)
    return w.transpose(1, 2).reshape(p * (rows // n), q * r, *k)


def blocks(part: str, n: int, sizes: dict[str, int], kernel: tuple[int, ...] = ()) -> tuple[int, ...]:
    """The shape of F for sizes in and out, given in this order; raises BadInput where n doesn't divide one."""
    for name, size in sizes.items():
        if size % n:
            raise BadInput(f"{part}: {name}={size!r} with n={n!r}; {name} has to be a multiple of n")
    d_in, d_out = sizes.values()
    return d_out, d_in // n, *kernel


def fill(layer: Any, generator: torch.Generator | None) -> None:
    """Glorot's uniform start of A and of F as a tensor (n, d_out / n, d_in / n, *kernel), a bias within 1 / sqrt(fan in)."""
    n, fan = layer.a.shape[0], math.prod(layer.f.shape[1:])
    uniform_(layer.a, math.sqrt(6 / (2 * n * n)), generator)
    uniform_(layer.f, math.sqrt(6 / ((layer.f.shape[0] // n + n) * fan)), generator)
    uniform_(layer.bias, 1 / math.sqrt(n * fan), generator)


@final
class PHMLinear(Layer):
    """y = (sum_i A_i (x) F_i) x + b with A (n, n, n) and F (d_out, d_in / n); (..., d_in) -> (..., d_out).

    As drawn, an output has about 2 / (d_out / n + n) of the mean square of the inputs: a net without norms starts small.
    Raises BadInput where n doesn't divide d_in and d_out.
    """

    def __init__(self, d_in: int, d_out: int, *, n: int = 4) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(n, n, n))
        self.f = nn.Parameter(torch.empty(blocks(self.part.id, n, {"d_in": d_in, "d_out": d_out})))
        self.bias = nn.Parameter(torch.empty(d_out))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        fill(self, generator)

    def compute(self, x_BI: Tensor) -> Tensor:
        return product(x_BI, kronecker_sum(self.a, self.f), self.bias)


@final
class PHConv(Layer):
    """The convolution by sum_i A_i (x) F_i, F (c_out, c_in / n, *kernel), and a bias; sized as nn.ConvNd is.

    Raises BadInput where n doesn't divide c_in and c_out: for RGB images n is 3, or a plain layer stands first.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel_size: int | tuple[int, ...],
        stride: int | tuple[int, ...] = 1,
        padding: int | tuple[int, ...] = 0,
        dilation: int | tuple[int, ...] = 1,
        *,
        n: int = 4,
        dims: int = 2,
    ) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(n, n, n))
        kernel = per_axis(kernel_size, dims)
        self.f = nn.Parameter(torch.empty(blocks(self.part.id, n, {"c_in": c_in, "c_out": c_out}, kernel)))
        self.bias = nn.Parameter(torch.empty(c_out))
        self.geometry = {"stride": stride, "padding": padding, "dilation": dilation}

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        fill(self, generator)

    def compute(self, x: Tensor) -> Tensor:
        weight = kronecker_sum(self.a, self.f)
        return CONVOLVE[self.dims](x.to(weight.dtype), weight, self.bias, **self.geometry)


# References -----------------------------------------------------------------------------------------------------------


def entries(layer: Any) -> list[list[list[float]]]:
    """W[row][column] as lists over the kernel's places: the Kronecker product entry by entry."""
    a, f = layer.a.tolist(), layer.f[..., None].flatten(2).tolist()
    n, outs, ins, places = len(a), len(f) // len(a), len(f[0]), len(f[0][0])

    def entry(row: int, column: int, k: int) -> float:
        (p, o), (q, r) = divmod(row, outs), divmod(column, ins)
        return sum(a[i][p][q] * f[i * outs + o][r][k] for i in range(n))

    return [[[entry(row, column, k) for k in range(places)] for column in range(n * ins)] for row in range(n * outs)]


def phm_reference(layer: Any, x_BI: Tensor) -> Tensor:
    w, bias = entries(layer), layer.bias.tolist()
    y = torch.empty(len(x_BI), len(bias), dtype=torch.float64)
    for b, x in enumerate(x_BI.tolist()):
        for o, row in enumerate(w):
            y[b, o] = bias[o] + sum(value[0] * v for value, v in zip(row, x, strict=True))
    return y


def conv_reference(layer: Any, x: Tensor) -> Tensor:
    """y[c][place] = b_c + sum over channels and kernel of W[c][i][k] x[i][place * stride - padding + k * dilation]."""
    w, dims, kernel, space = entries(layer), x.dim() - 2, layer.f.shape[2:], x.shape[2:]
    stride, padding, dilation = ([v] * dims if isinstance(v, int) else v for v in layer.geometry.values())
    sizes = [
        (s + 2 * p - d * (k - 1) - 1) // t + 1 for s, p, d, k, t in zip(space, padding, dilation, kernel, stride, strict=True)
    ]
    taps, places = (list(itertools.product(*map(range, shape))) for shape in (kernel, sizes))
    y = torch.empty(len(x), len(w), len(places), dtype=torch.float64)
    for b, image in enumerate(x.flatten(2).tolist()):
        for o, place in enumerate(places):
            seen = []  # (which tap, which value of a channel)
            for k, tap in enumerate(taps):
                at = [i * t - p + j * d for i, t, p, j, d in zip(place, stride, padding, tap, dilation, strict=True)]
                if all(0 <= i < s for i, s in zip(at, space, strict=True)):
                    flat = 0
                    for i, s in zip(at, space, strict=True):
                        flat = flat * s + i
                    seen.append((k, flat))
            for c, row in enumerate(w):
                total = sum(row[i][k] * channel[v] for i, channel in enumerate(image) for k, v in seen)
                y[b, c, o] = float(layer.bias[c]) + total
    return y.view(len(x), len(w), *sizes)


# Claims ---------------------------------------------------------------------------------------------------------------


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_rules(cls: Any, rules: list[list[list[int]]], *sizes: int, **options: Any) -> Any:
    built = drawn(cls, *sizes, n=len(rules), **options).requires_grad_(False)
    built.a.copy_(torch.tensor(rules))
    return built


def claim_plain() -> bool:
    """n = 1 with the rule 1 is the plain layer."""
    phm, conv = with_rules(PHMLinear, [[[1]]], 5, 3), with_rules(PHConv, [[[1]]], 3, 5, 3, padding=1)
    x, image = normal(4, 5), normal(2, 3, 6, 6)
    same = torch.allclose(phm(x), F.linear(x, phm.f, phm.bias))
    return same and torch.allclose(conv(image), F.conv2d(image, conv.f, conv.bias, padding=1))


def claim_complex() -> bool:
    """n = 2 with the rules of complex numbers is a complex matrix times a complex vector."""
    phm, x = with_rules(PHMLinear, COMPLEX, 6, 8), normal(10, 6)
    y = torch.complex(x[:, :3], x[:, 3:]) @ torch.complex(*phm.f.chunk(2)).T
    return torch.allclose(phm(x), torch.cat((y.real, y.imag), 1) + phm.bias)


def hamilton(u: Tensor, v: Tensor) -> Tensor:
    """The product of quaternions (..., 4): scalar and vector parts."""
    dot, cross = (u[..., 1:] * v[..., 1:]).sum(-1, keepdim=True), torch.linalg.cross(u[..., 1:], v[..., 1:], dim=-1)
    return torch.cat((u[..., :1] * v[..., :1] - dot, u[..., :1] * v[..., 1:] + v[..., :1] * u[..., 1:] + cross), -1)


def claim_quaternion() -> bool:
    """n = 4 with Hamilton's rules sums the products of quaternion weights and inputs, at every place of an image too."""
    phm, conv = with_rules(PHMLinear, HAMILTON, 12, 8), with_rules(PHConv, HAMILTON, 12, 8, 1)
    for built, x in ((phm, normal(5, 12)), (conv, normal(5, 12, 2, 3))):
        q = x.unflatten(1, (4, 3)).flatten(3) if x.dim() > 2 else x.view(5, 4, 3, 1)  # (B, 4, R, places)
        weight = built.f.view(4, 2, 3)
        each = hamilton(weight.permute(1, 2, 0)[None, :, :, None], q.permute(0, 2, 3, 1)[:, None])  # (B, O, R, places, 4)
        wanted = each.sum(2).permute(0, 3, 1, 2).flatten(1, 2).reshape(5, 8, *x.shape[2:])
        if not torch.allclose(built(x), wanted + built.bias.view(8, *[1] * (x.dim() - 2))):
            return False
    return True


def claim_fewer() -> bool:
    """n^3 + d_in d_out / n + d_out parameters: within a hundredth of 1/n of the plain layer's at width 512."""
    for n in (2, 4, 8):
        with torch.device("meta"):
            count = sum(p.numel() for p in PHMLinear(512, 512, n=n).parameters())
        if count != n**3 + 512 * 512 // n + 512 or not 1 / n < count / (512 * 512 + 512) < 1 / n + 0.01:
            return False
    return True


def claim_place() -> bool:
    """With a kernel of one place the convolution is the linear layer at every place."""
    phm, conv, x = drawn(PHMLinear, 8, 12), drawn(PHConv, 8, 12, 1, dims=1), normal(3, 8, 5)
    conv.load_state_dict({name: p.view(getattr(conv, name).shape) for name, p in phm.state_dict().items()})
    return torch.allclose(conv(x), phm(x.transpose(1, 2)).transpose(1, 2))


PAPER = Paper("phnn")
N = Option("n", 4, "number of rules, and the side of each; has to divide inputs and outputs", bounds=(0, 10000))
ON_PAR = "with about 1/n of the parameters it does at least as well as the plain net on images"
KEPT = "the weight is a local value; the code keeps it as an attribute, reassigned in every forward"

PHM = layer(
    PHMLinear,
    name="phm",
    summary="PHM: a linear map whose weight is a sum of Kronecker products with learnt rules (Grassucci et al., 2021).",
    reference=phm_reference,
    formula=r"\left(\sum_{i=1}^{n} A_i \otimes F_i\right) x + b",
    paper=PAPER,
    tags=Tags(readout=False),
    options=(N,),
    toy={"d_in": 8},
    settings=({"n": 1}, {"n": 2}, {"n": 3, "d_in": 6, "d_out": 9}),
    parameters="n ** 3 + d_in * d_out / n + d_out",
    products="2 * d_in * d_out * (1 + n / rows)",
    claims=(
        Claim("plain", "n = 1 is the plain layer", check=claim_plain),
        Claim("complex", "n = 2 holds the complex product", check=claim_complex),
        Claim("quaternion", "n = 4 holds the quaternion product", check=claim_quaternion),
        Claim("fewer", "has about 1/n of the parameters", where="abstract", check=claim_fewer),
    ),
    deviations=(KEPT,),
)

CONV = layer(
    PHConv,
    name="ph-conv",
    summary="PH convolution: its kernel is a sum of Kronecker products with learnt rules (Grassucci et al., 2021).",
    reference=conv_reference,
    formula=r"\left(\sum_{i=1}^{n} A_i \otimes F_i\right) * x + b",
    paper=PAPER,
    tags=Tags(shape="conv"),
    options=(N,),
    toy={"c_out": 8},
    settings=({"n": 1, "dims": 1}, {"n": 2}, {"n": 3, "c_in": 3, "c_out": 6}),
    parameters="n ** 3 + c_in * c_out * taps / n + c_out",
    products="2 * c_in * c_out * taps * (places_out + n / rows)",
    claims=(
        Claim("place", "is the linear layer at every place where its kernel has one place", check=claim_place),
        Claim(
            "on-par",
            ON_PAR,
            where="abstract",
            protocol=Protocol(task="cifar10", against="activation/relu", expect="not worse", match="none", seeds=6, trials=3),
        ),
    ),
    deviations=(KEPT, "the bias is added; the code makes one and never passes it to the convolution", "dilation, in 2-D too"),
)

PARTS = (PHM, CONV)
