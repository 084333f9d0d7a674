"""Frequency dynamic convolution: a kernel made for every image from disjoint parts of one spectrum (Chen et al., 2025).

Three things depend on the image, all near 1 at the start:
    disjoint weights   W = irfft2(sum_n pi_n(x) S_n), where the S_n are n disjoint groups of the frequencies of one spectrum
    kernel modulation  W times one factor a channel, a filter and a tap (global), and one a weight (local)
    band modulation    x = x_1 + x_2 + x_3 + x_0, bands of frequencies, of which the first three get a factor a place

Shape suffixes: B rows, I and O channels before and after, K taps, H W space, A attention, G outputs of the global
branch, N groups, R = O * kernel height and T = I * kernel width: the weights as a matrix, F = T // 2 + 1 its frequencies.
"""

from __future__ import annotations

import cmath
import itertools
import math
from collections.abc import Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.part import Claim, Option, Paper, Protocol
from netwright.layers._kind import Layer, Tags, layer, per_axis, product, uniform_
from netwright.layers.convolution._windows import extents, flat, one_by_windows
from netwright.tensor.modules import drawn
from netwright.tensor.precision import autocast_dtype

#: A band of frequencies ends at this share of the sampling rate.
CUTS = (1 / 4, 1 / 8, 1 / 16)


def low_passes(x_BCHW: Tensor) -> list[Tensor]:
    """x without the frequencies whose larger component is above a cut, for every cut."""
    h, w = x_BCHW.shape[-2:]
    rows, columns = torch.fft.fftfreq(h, device=x_BCHW.device), torch.fft.rfftfreq(w, device=x_BCHW.device)
    radius_HF = torch.maximum(rows.abs()[:, None], columns)
    spectrum = torch.fft.rfft2(x_BCHW)
    return [torch.fft.irfft2(spectrum * (radius_HF < cut + 1e-6), s=(h, w)) for cut in CUTS]


def radial_groups(rows: int, columns: int, groups: int) -> Tensor:
    """(rows, columns // 2 + 1): the frequencies of a real matrix in groups by their distance from 0, of about one size."""
    f, g = torch.fft.fftfreq(rows, dtype=torch.float64), torch.fft.rfftfreq(columns, dtype=torch.float64)
    order = (f[:, None] ** 2 + g**2).flatten().argsort(stable=True)
    found = torch.empty_like(order)
    found[order] = torch.arange(len(order)) * groups // len(order)
    return found.view(rows, -1)


@final
class FDConv(Layer):
    """y = W(x) * bands(x) + bias; (..., c_in, height, width) -> (..., c_out, height', width').

    kernels: N, groups of frequencies of about one size, sorted by their distance from 0; no more than there are
    frequencies. They cost no weights, as they share one spectrum. reduction: channels an attention channel, of which
    there are at least 16. local: a factor for every weight. bands: a factor for every band and place; a kernel of one tap
    has none, and no factor a tap.
    """

    group: Tensor  # (R, F): the group of every frequency

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        *,
        kernels: int = 64,
        reduction: int = 16,
        local: bool = True,
        bands: bool = True,
        dims: int = 2,
    ) -> None:
        super().__init__()
        self.kernel = per_axis(kernel_size, 2)
        self.geometry = tuple(per_axis(size, 2) for size in (stride, padding, dilation))
        taps = self.kernel[0] * self.kernel[1]
        rows, columns = c_out * self.kernel[0], c_in * self.kernel[1]
        attention = max(16, c_in // reduction)
        self.parts = [c_in, c_out, taps if taps > 1 else 0, min(kernels, rows * (columns // 2 + 1))]
        self.scale = max(1, min(c_in, c_out) // 2)  # the spectrum is held this much smaller, so that it learns faster
        self.spectrum = nn.Parameter(torch.empty(rows, columns // 2 + 1, 2))
        self.bias = nn.Parameter(torch.empty(c_out))
        self.squeeze = nn.Parameter(torch.empty(attention, c_in))
        self.norm_weight = nn.Parameter(torch.empty(attention))
        self.star = nn.Parameter(torch.empty(2))
        self.heads = nn.Parameter(torch.empty(sum(self.parts), attention))
        self.heads_bias = nn.Parameter(torch.empty(sum(self.parts)))
        self.local, self.banded = local, bands and taps > 1
        if local:
            self.local_norm_weight, self.local_norm_bias = (nn.Parameter(torch.empty(c_in)) for _ in range(2))
            reach = round(math.log2(c_in) / 2 + 0.5) // 2 * 2 + 1  # neighbouring channels that a factor reads
            self.local_weight = nn.Parameter(torch.empty(c_out * taps, 1, reach))
        if self.banded:
            self.band_weight = nn.Parameter(torch.empty(3, c_in, 3, 3))
            self.band_bias = nn.Parameter(torch.empty(3))
        self.register_buffer("group", torch.empty(rows, columns // 2 + 1, dtype=torch.long))

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """The spectrum of a kernel drawn as nn.Conv2d draws it; all that modulates it near 0, so that factors are near 1."""
        rows, columns = self.group.shape[0], self.parts[0] * self.kernel[1]
        wide = torch.promote_types(self.spectrum.dtype, torch.float32)
        weight_RT = torch.empty(rows, columns, dtype=wide, device=self.spectrum.device)
        uniform_(weight_RT, 1 / math.sqrt(columns * self.kernel[0]), generator)
        self.spectrum.copy_(torch.view_as_real(torch.fft.rfft2(weight_RT)) / self.scale)
        uniform_(self.bias, 1 / math.sqrt(columns * self.kernel[0]), generator)
        self.squeeze.normal_(0, math.sqrt(2 / len(self.squeeze)), generator=generator)
        self.heads.normal_(0, 1e-6, generator=generator)
        self.norm_weight.fill_(1.0)
        self.star.copy_(torch.tensor([1.0, 0.0]))
        self.heads_bias.zero_()
        if self.local:
            self.local_norm_weight.fill_(1.0)
            self.local_norm_bias.zero_()
            self.local_weight.fill_(1e-6)
        if self.banded:
            self.band_weight.normal_(0, 1e-6, generator=generator)
            self.band_bias.zero_()
        self.group.copy_(radial_groups(rows, columns, self.parts[3]))

    @property
    def quantities(self) -> dict[str, float]:
        reach = self.local_weight.shape[-1] if self.local else 0
        own = {"attention": len(self.squeeze), "outputs": sum(self.parts), "frequencies": self.group.numel(), "reach": reach}
        return {**super().quantities, **own, "bands": int(self.banded)}

    def weights(self, x_BIHW: Tensor) -> Tensor:
        """The kernels (B, O, I, *kernel_size) that the rows are convolved with."""
        (c_in, c_out, taps, _), (tall, wide) = self.parts, self.kernel
        rows = x_BIHW.shape[0]
        z_BI = x_BIHW.mean((2, 3))
        a_BA = product(z_BI, self.squeeze)
        a_BA = a_BA * (a_BA.square().mean(1, keepdim=True) + 1e-6).rsqrt() * self.norm_weight
        a_BA = self.star[0] * torch.relu(a_BA).square() + self.star[1]
        factors_BG = 2 * product(a_BA, self.heads, self.heads_bias).to(x_BIHW.dtype).sigmoid()
        channel_BI, filter_BO, tap_BK, pi_BN = factors_BG.split(self.parts, 1)
        # The code's 2 sigmoid / N times its N: at the start every group is taken once.
        pi_BRF = pi_BN.index_select(1, self.group.flatten()).view(rows, *self.group.shape)
        spectrum_RF = torch.view_as_complex(self.scale * self.spectrum.to(x_BIHW.dtype))
        w = torch.fft.irfft2(pi_BRF * spectrum_RF, s=(c_out * tall, c_in * wide))
        w = w.view(rows, c_out, tall, c_in, wide).transpose(2, 3)
        w = w * ((1 + self.local) * filter_BO[:, :, None] * channel_BI[:, None])[..., None, None]
        if taps:
            w = w * tap_BK.view(rows, 1, 1, tall, wide)
        if self.local:
            z_BI = F.layer_norm(z_BI.to(self.local_weight.dtype), (c_in,), self.local_norm_weight, self.local_norm_bias)
            logits = F.conv1d(z_BI[:, None], self.local_weight, padding=self.local_weight.shape[-1] // 2)
            w = w * logits.to(w.dtype).sigmoid().view(rows, c_out, tall, wide, c_in).movedim(4, 2)
        return w

    def modulated(self, x_BIHW: Tensor) -> Tensor:
        """The bands of x times their factors, and the lowest as it is; telescoped, so that factors of 1 give x."""
        gate_BC = 2 * F.conv2d(x_BIHW.to(self.band_weight.dtype), self.band_weight, self.band_bias, padding=1).sigmoid()
        gates = [*gate_BC.to(x_BIHW.dtype).split(1, 1), 1.0]
        y = gates[0] * x_BIHW
        for low, (one, following) in zip(low_passes(x_BIHW), itertools.pairwise(gates), strict=True):
            y = y + (following - one) * low
        return y

    def compute(self, x_BIHW: Tensor) -> Tensor:
        (c_in, c_out, *_), (rows, _, *space) = self.parts, x_BIHW.shape
        dtype = autocast_dtype(x_BIHW) or self.spectrum.dtype
        after = extents(space, self.sizes)
        if rows == 0:  # which no Fourier transform takes
            return x_BIHW.new_zeros(0, c_out, *after, dtype=dtype) + self.bias.to(dtype)[:, None, None]
        w = self.weights(x_BIHW).to(dtype)
        x = (self.modulated(x_BIHW) if self.banded else x_BIHW).to(dtype)
        stride, padding, dilation = self.geometry
        if torch.compiler.is_compiling():  # it can't have as many groups as rows where these vary
            patches_BJP = F.unfold(x, self.kernel, dilation, padding, stride)
            y = torch.bmm(w.reshape(rows, c_out, patches_BJP.shape[1]), patches_BJP)
        else:
            kernels = w.reshape(rows * c_out, c_in, *self.kernel)
            y = F.conv2d(x.reshape(1, rows * c_in, *space), kernels, None, stride, padding, dilation, rows)
        return y.reshape(rows, c_out, *after) + self.bias.to(dtype)[:, None, None]


# References -----------------------------------------------------------------------------------------------------------


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(v * u for v, u in zip(a, b, strict=True))


def wave(turns: float) -> complex:
    return cmath.exp(2j * cmath.pi * turns)


def real_matrix(half: list[list[complex]], columns: int) -> list[list[float]]:
    """The real matrix of a two-dimensional spectrum, of which columns // 2 + 1 columns are held, as a sum of waves."""
    rows, made = len(half), []
    for r in range(rows):
        across = [sum(half[f][t] * wave(f * r / rows) for f in range(rows)) / rows for t in range(len(half[0]))]
        twice = [1 if f == 0 or 2 * f == columns else 2 for f in range(len(across))]
        made.append(
            [
                sum(n * (v * wave(f * t / columns)).real for f, (n, v) in enumerate(zip(twice, across, strict=True))) / columns
                for t in range(columns)
            ]
        )
    return made


def low_frequencies(image: list[list[float]], cut: float) -> list[list[float]]:
    """An image without the frequencies that are above the cut on either axis: what every place gives to every other."""
    shares = []
    for size in (len(image), len(image[0])):
        kept = [f for f in range(-(size // 2), (size + 1) // 2) if abs(f) / size <= cut + 1e-6]
        shares.append([sum(wave(f * d / size).real for f in kept) / size for d in range(size)])
    down, along = shares
    at = [(i, j, v) for i, line in enumerate(image) for j, v in enumerate(line)]
    return [[sum(down[p - i] * along[q - j] * v for i, j, v in at) for q in range(len(along))] for p in range(len(down))]


def soft(v: float) -> float:
    return 2 / (1 + math.exp(-v))


def convolved(row_CS: Tensor, lines: list[list[float]], sizes: Any) -> Tensor:
    """The products (O, *space) of what lies under the kernel, as one list, with every line."""
    return one_by_windows(row_CS, sizes, lambda under: [dot(line, flat(under)) for line in lines])


def banded(row_CHW: Tensor, weights: list[Any], biases: list[float]) -> Tensor:
    """The bands of an image, the lowest last, each but that one times a factor a place that a 3 x 3 kernel gives."""
    around = {"kernel_size": 3, "stride": 1, "padding": 1, "dilation": 1}
    y, above = torch.zeros_like(row_CHW), row_CHW
    for weight, bias, cut in zip(weights, biases, CUTS, strict=True):
        lines = [list(itertools.chain.from_iterable(line for channel in weight for line in channel))]
        logit_1HW = convolved(row_CHW, lines, around) + bias
        below = torch.tensor([low_frequencies(image, cut) for image in row_CHW.tolist()], dtype=torch.float64)
        y, above = y + 2 / (1 + (-logit_1HW).exp()) * (above - below), below
    return y + above


def reference(layer: Any, x_BIHW: Tensor) -> Tensor:
    """Sums over frequencies one by one, low passes as sums over all places, and every weight with its own factors."""
    (c_in, c_out, taps, n), (tall, wide) = layer.parts, layer.kernel
    scale = max(1, min(c_in, c_out) // 2)
    values = {name: p.tolist() for name, p in layer.named_parameters()}

    def filters(row: Tensor) -> list[list[float]]:
        z = [float(channel.mean()) for channel in row]
        a = [dot(line, z) for line in values["squeeze"]]
        (s, b), size = values["star"], math.sqrt(dot(a, a) / len(a) + 1e-6)
        a = [s * max(0.0, v / size * g) ** 2 + b for v, g in zip(a, values["norm_weight"], strict=True)]
        factors = [soft(dot(line, a) + b) for line, b in zip(values["heads"], values["heads_bias"], strict=True)]
        pi = factors[len(factors) - n :]
        lines = zip(values["spectrum"], layer.group.tolist(), strict=True)
        half = [[complex(*s) * scale * pi[g] for s, g in zip(*line, strict=True)] for line in lines]
        plain = real_matrix(half, c_in * wide)
        made: list[list[float]] = []
        mean = sum(z) / c_in
        spread = math.sqrt(sum((v - mean) ** 2 for v in z) / c_in + 1e-5)
        for o in range(c_out):
            made.append([])
            for i, p, q in itertools.product(range(c_in), range(tall), range(wide)):
                tap = p * wide + q
                w = plain[o * tall + p][i * wide + q] * factors[i] * factors[c_in + o]
                w *= factors[c_in + c_out + tap] if taps else 1.0
                if layer.local:
                    (line,) = values["local_weight"][o * tall * wide + tap]
                    logit = 0.0
                    for d, v in enumerate(line, i - len(line) // 2):
                        if 0 <= d < c_in:
                            gain, offset = values["local_norm_weight"][d], values["local_norm_bias"][d]
                            logit += v * ((z[d] - mean) / spread * gain + offset)
                    w *= soft(logit)
                made[-1].append(w)
        return made

    images = [banded(row, values["band_weight"], values["band_bias"]) if layer.banded else row for row in x_BIHW]
    found = [convolved(image, filters(row), layer.sizes) for image, row in zip(images, x_BIHW, strict=True)]
    return torch.stack(found) + layer.bias[:, None, None]


def _image(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _kernel(ours: Any) -> Tensor:
    """The plain kernel of the whole spectrum."""
    (c_in, c_out, *_), (tall, wide) = ours.parts, ours.kernel
    full = torch.view_as_complex(ours.scale * ours.spectrum)
    return torch.fft.irfft2(full, s=(c_out * tall, c_in * wide)).view(c_out, tall, c_in, wide).transpose(1, 2)


@torch.no_grad()
def claim_start() -> bool:
    """At the start it is the plain convolution with the kernel of the whole spectrum, its constant 1, to about 1e-5."""
    for sizes, options in (((4, 6, 3), {}), ((3, 5, 3), {"kernels": 5}), ((4, 6, 1), {}), ((1, 4, (3, 2)), {"local": False})):
        ours, x = drawn(FDConv, *sizes, **options), _image(2, sizes[0], 9, 8)
        if float((F.conv2d(x, _kernel(ours), ours.bias) - ours(x)).abs().max()) > 1e-4:
            return False
    return True


@torch.no_grad()
def claim_inverse() -> bool:
    """The transform back and forth gives every kernel, of even and odd width."""
    for c_in in (4, 3):
        ours = drawn(FDConv, c_in, 6, 3)
        w = _image(6, c_in, 3, 3)
        turned = torch.fft.rfft2(w.transpose(1, 2).reshape(18, 3 * c_in)) / ours.scale
        ours.spectrum.copy_(torch.view_as_real(turned))
        if not torch.allclose(_kernel(ours), w, atol=1e-12):
            return False
    return True


def claim_groups() -> bool:
    """The groups are disjoint and cover all frequencies, differ by at most one in size, and lie further out one by one."""
    for c_in, kernels in ((4, 64), (3, 7), (16, 4)):
        ours = drawn(FDConv, c_in, 6, 3, kernels=kernels)
        rows, columns = torch.fft.fftfreq(18).double(), torch.fft.rfftfreq(3 * c_in).double()
        radius, sizes = (rows[:, None] ** 2 + columns**2).sqrt(), ours.group.flatten().bincount(minlength=kernels)
        ends = [(radius[ours.group == g].min(), radius[ours.group == g].max()) for g in range(kernels)]
        ordered = all(float(a[1]) <= float(b[0]) + 1e-6 for a, b in itertools.pairwise(ends))
        if int(sizes.max() - sizes.min()) > 1 or int(sizes.sum()) != radius.numel() or not ordered:
            return False
    return True


@torch.no_grad()
def claim_bands() -> bool:
    """The bands sum to x, share no frequency, and with factors of 1 the modulation changes nothing."""
    for shape in ((2, 3, 16, 12), (2, 3, 7, 5)):
        x = _image(*shape)
        lows = low_passes(x)
        bands = [a - b for a, b in zip([x, *lows], [*lows, torch.zeros_like(x)], strict=True)]
        if float((torch.stack(bands).sum(0) - x).abs().max()) > 1e-12:
            return False
        if any(float((a * b).sum((2, 3)).abs().max()) > 1e-10 for a, b in itertools.combinations(bands, 2)):
            return False
    ours = drawn(FDConv, 3, 3, 3)
    ours.band_weight.zero_()
    return torch.equal(ours.modulated(x), x)


def claim_parameters() -> bool:
    """Sixteen times as many kernels add a row to the attention each, and no weight."""
    with torch.device("meta"):
        few, many = (sum(p.numel() for p in FDConv(64, 64, 3, kernels=n).parameters()) for n in (4, 64))
    return many - few == 60 * (16 + 1)


PART = layer(
    FDConv,
    name="fdconv",
    reference=reference,
    formula=r"y = \mathcal{F}^{-1}(\sum_n \pi_n(x) S_n)\, \alpha(x) * \sum_b A_b(x) x_b",
    paper=Paper("fdconv"),
    tags=Tags(shape="conv", affine=False, delicate=True),
    options=(
        Option("kernels", 64, "groups of frequencies with a weight each, which depends on the image", bounds=(0, 10**6)),
        Option("reduction", 16, "channels an attention channel, of which there are at least 16", bounds=(0, 10**6)),
        Option("local", True, "a factor for every single weight", allowed=(True, False)),
        Option("bands", True, "a factor for every band of frequencies and place of the image", allowed=(True, False)),
        Option("dims", 2, "dimensions in space", allowed=(2,)),
    ),
    settings=({"kernel_size": 1}, {"c_in": 3, "kernels": 5, "kernel_size": (2, 3)}),
    parameters="2 * frequencies + c_out + attention * (c_in + 1 + outputs) + outputs + 2"
    " + local * (2 * c_in + c_out * taps * reach) + bands * 3 * (9 * c_in + 1)",
    products="2 * attention * (c_in + outputs) + 2 * local * c_in * c_out * taps * reach + 54 * bands * c_in * places_in"
    " + 2 * c_in * c_out * taps * places_out",
    elementwise="2 * frequencies + c_in * c_out * taps * (5 + 3 * local) + 8 * attention + 2 * outputs"
    " + (1 + 16 * bands) * c_in * places_in + c_out * places_out",
    claims=(
        Claim("start", "starts as the plain convolution", check=claim_start),
        Claim("inverse", "the spectrum and the kernel determine each other", check=claim_inverse),
        Claim("groups", "groups of frequencies are disjoint and cover all", check=claim_groups),
        Claim("bands", "bands are orthogonal and sum to the image", check=claim_bands),
        Claim("parameters", "many kernels for the weights of one", check=claim_parameters),
        Claim(
            "accuracy",
            "is better than a plain convolution (+2.2 AP of Faster R-CNN on COCO, with 3.6 M more parameters)",
            where="README of the code, performance highlights",
            protocol=Protocol(
                task="cifar10",
                against="activation/relu",
                expect="better",
                seeds=6,
                trials=3,
                match="none",
                options={"host": "convnet"},
            ),
        ),
    ),
    deviations=(
        "a root mean square norm of the row stands where the code has batch norm of a 1 x 1 map, which a batch of one can't be"
        " trained with, and which shows a row its batch; the authors' later FDLinear does the same",
        "used at every width and kernel; the code keeps plain convolutions up to 16 channels and but for kernels of 1 and 3",
        "groups may differ by one frequency; the code fails where N doesn't divide their number, or the width is odd",
        "bands are cut at exact frequencies; the code resizes masks of a 64 x 64 map to the size at hand",
        "the factor of filters starts at 1, as the code means it to: its test of func_filter never finds the layer to fill",
    ),
)
