"""Heterogeneous delays: a weight for every delay, so that events in order arrive together (Grimaldi and Perrinet, 2023).

Dense it is a convolution over time and space of a raster of events, into the evidence of every class; event by event each
adds the weights of its polarity around its place, from its own time on.

Shape suffixes: B rows, P polarities, C classes, T time, H W height and width, D delays, Y X the kernel in space, N events.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.core.part import Claim, Option, Paper
from netwright.layers._kind import Layer, Tags, layer, per_axis, uniform_
from netwright.tensor.modules import drawn


@final
class HeterogeneousDelays(Layer):
    """B_c(t, y, x) = sum_(p, d, i, j) K_c(p, d, i, j) A_p(t - d, y - i, x - j) + b_c; (..., P, T, H, W) -> (..., C, T', H', W').

    kernel_size: (delays, height, width), or one number for all three. The output is sized as nn.Conv3d's; what the padding
    adds in time is all before the first step, none after the last, so that no output sees later events: output t' is of
    time (t' * stride) + dilation * (delays - 1) - 2 * padding. With padding 0 the first one is of the first time at which
    all delays are within the record. Shifts in space are counted from the kernel's far corner, so that i, j >= 0.

    The evidence is returned; the paper's probability of a class is its sigmoid.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel_size: int, stride: int = 1, padding: int = 0, dilation: int = 1, *, dims: int = 3
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding, self.dilation = (
            per_axis(size, 3) for size in (kernel_size, stride, padding, dilation)
        )
        self.weight = nn.Parameter(torch.empty(c_out, c_in, *self.kernel))
        self.bias = nn.Parameter(torch.empty(c_out))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """As nn.Conv3d: U(-1, 1) over the root of the number of synapses of a class."""
        for p in (self.weight, self.bias):
            uniform_(p, 1 / math.sqrt(self.weight[0].numel()), generator)

    def compute(self, x_BPTHW: Tensor) -> Tensor:
        before, *around = self.padding
        past = F.pad(x_BPTHW, (0, 0, 0, 0, 2 * before, 0)) if before else x_BPTHW
        kernel = self.weight.flip((2, 3, 4))  # torch's convolution is a correlation: its first tap is the longest delay
        return F.conv3d(past, kernel, self.bias, self.stride, (0, *around), self.dilation)

    def from_events(self, events_N5: Tensor, rows: int, space: tuple[int, int, int]) -> Tensor:
        """The layer's output (rows, C, T', H', W') from a list of events (row, polarity, time, y, x), whole numbers.

        rows and space = (T, H, W): the sizes of the raster they would fill. Every event adds the weights of its polarity to
        the outputs it reaches: work grows with events and synapses, not with time and space. Events that share a place add up.
        Raises BadInput for events that aren't whole numbers, five a row, within these sizes.
        """
        sizes = (rows, self.weight.shape[1], *space)
        if events_N5.dim() != 2 or events_N5.shape[1] != 5 or events_N5.is_floating_point():
            shown = f"shape {tuple(events_N5.shape)} in {events_N5.dtype}"
            raise BadInput(f"{self.part.id}: events of {shown}; expected (events, 5) whole numbers: row, polarity, time, y, x")
        limits = torch.tensor(sizes, device=events_N5.device)
        if bool(((events_N5 < 0) | (events_N5 >= limits)).any()):
            raise BadInput(f"{self.part.id}: an event lies outside (rows, polarities, time, height, width) = {sizes}")
        row_N, polarity_N, *at = events_N5.T
        before = (2 * self.padding[0], *self.padding[1:])  # all of the padding in time is before the record
        after, places, fits = [], [], []
        for axis, (k, s, d) in enumerate(zip(self.kernel, self.stride, self.dilation, strict=True)):
            after.append((space[axis] + 2 * self.padding[axis] - d * (k - 1) - 1) // s + 1)
            shift_K = d * torch.arange(k - 1, -1, -1, device=events_N5.device)
            from_first_NK = at[axis][:, None] + before[axis] - shift_K
            places.append(from_first_NK.div(s, rounding_mode="floor"))
            fits.append((from_first_NK % s == 0) & (places[-1] >= 0) & (places[-1] < after[-1]))
        y_MC = self.bias.expand(rows * math.prod(after), -1).clone()
        for delay in range(self.kernel[0]):
            plane_N = row_N * after[0] + places[0][:, delay]
            index_NYX = (plane_N[:, None, None] * after[1] + places[1][:, :, None]) * after[2] + places[2][:, None]
            reached_NYX = fits[0][:, delay, None, None] & fits[1][:, :, None] & fits[2][:, None]
            weight_NYXC = self.weight[:, :, delay].permute(1, 2, 3, 0)[polarity_N]
            y_MC = y_MC.index_add(0, index_NYX[reached_NYX], weight_NYXC[reached_NYX])
        return y_MC.view(rows, *after, -1).movedim(-1, 1)

    @torch.no_grad()
    def prune(self, share: float) -> int:
        """Set all weights to 0 but this share of them, the largest; returns how many are left. Raises BadInput."""
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise BadInput(f"{self.part.id}: share={share!r}; allowed: above 0, up to 1")
        kept = max(1, round(share * self.weight.numel()))
        smallest = self.weight.abs().flatten().topk(kept).values[-1]
        self.weight.masked_fill_(self.weight.abs() < smallest, 0.0)
        return int(self.weight.count_nonzero())


def reference(layer: Any, x_BPTHW: Tensor) -> Tensor:
    """The paper's sum, an output and a synapse at a time."""
    each = (per_axis(layer.sizes[name], 3) for name in ("kernel_size", "stride", "padding", "dilation"))
    kernel, stride, padding, dilation = each
    x, weight, space = x_BPTHW.tolist(), layer.weight.tolist(), x_BPTHW.shape[2:]
    shape = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in zip(space, kernel, stride, padding, dilation, strict=True)
    ]
    y = torch.empty(len(x), len(weight), *shape, dtype=torch.float64)
    for b, c in itertools.product(range(len(x)), range(len(weight))):
        for place in itertools.product(*map(range, shape)):
            # the latest time and the far corner in space that this output sees
            ends = [o * s + d * (k - 1) - p for o, s, d, k, p in zip(place, stride, dilation, kernel, padding, strict=True)]
            ends[0] -= padding[0]
            total = float(layer.bias[c])
            for p, polarity in enumerate(weight[c]):
                for shift in itertools.product(*map(range, kernel)):
                    t, i, j = (end - d * k for end, d, k in zip(ends, dilation, shift, strict=True))
                    if 0 <= t < space[0] and 0 <= i < space[1] and 0 <= j < space[2]:
                        total += polarity[shift[0]][shift[1]][shift[2]] * x[b][p][t][i][j]
            y[(b, c, *place)] = total
    return y


def _events(count: int = 60) -> tuple[Tensor, Tensor]:
    """Events (N, 5) in two rows, two polarities, 12 steps of 9 x 8 places, and the raster they fill."""
    g, sizes = torch.Generator().manual_seed(0), (2, 2, 12, 9, 8)
    events = torch.stack([torch.randint(size, (count,), generator=g) for size in sizes], 1)
    raster = torch.zeros(sizes, dtype=torch.float64)
    return events, raster.index_put(tuple(events.T), torch.ones(count, dtype=torch.float64), accumulate=True)


@torch.no_grad()
def claim_events() -> bool:
    """Event by event it gives what the convolution gives, for every geometry, and where events share a place."""
    events, raster = _events()
    for geometry in (
        {"kernel_size": (5, 3, 3), "padding": (2, 1, 1)},
        {"kernel_size": (3, 2, 4), "stride": (1, 2, 2), "dilation": (2, 1, 1)},
        {"kernel_size": 2, "stride": 2, "padding": 1, "dilation": 2},
    ):
        ours = drawn(HeterogeneousDelays, 2, 4, **geometry)
        if not torch.allclose(ours.from_events(events, 2, (12, 9, 8)), ours(raster), rtol=0, atol=1e-10):
            return False
    return True


@torch.no_grad()
def claim_shift() -> bool:
    """Events moved in time and space move the output as far."""
    ours, (_, raster) = drawn(HeterogeneousDelays, 2, 3, kernel_size=(4, 3, 3)), _events()
    return bool(torch.allclose(ours(raster[..., 2:, 3:, 1:]), ours(raster)[..., 2:, 3:, 1:], atol=1e-12))


@torch.no_grad()
def claim_causal() -> bool:
    """An event is answered at its own time and up to the longest delay after it, never before."""
    ours = drawn(HeterogeneousDelays, 1, 1, kernel_size=(5, 3, 3), padding=(2, 1, 1))
    x = torch.zeros(1, 1, 20, 6, 6, dtype=torch.float64)
    x[0, 0, 9, 3, 3] = 1.0
    answered = (ours(x) - ours(0 * x))[0, 0].abs().amax((1, 2)) > 0
    return answered.nonzero().flatten().tolist() == list(range(9, 14))


@torch.no_grad()
def claim_motion() -> bool:
    """A dot that moves there and one that moves back leave the same summed evidence with one delay, another with three."""
    there = torch.zeros(1, 1, 9, 3, 9, dtype=torch.float64)
    there[0, 0, range(9), 1, range(9)] = 1.0
    gaps = []
    for delays in (1, 3):
        ours = drawn(HeterogeneousDelays, 1, 4, kernel_size=(delays, 3, 3), padding=(delays - 1, 1, 1))
        gaps.append(float((ours(there).sum((2, 3, 4)) - ours(there.flip(2)).sum((2, 3, 4))).abs().max()))
    filtered = ours(there).amax((2, 3, 4)) - ours(there.flip(2)).amax((2, 3, 4))
    return gaps[0] < 1e-12 and float(filtered.abs().max()) > 1e-3


@torch.no_grad()
def claim_prune() -> bool:
    """Pruning keeps the largest weights: the output moves least of all choices of as many, in the mean over white input."""
    ours = drawn(HeterogeneousDelays, 2, 3, kernel_size=(4, 3, 3))
    before = ours.weight.clone()
    left = ours.prune(0.25)
    kept = ours.weight != 0
    return left == 54 == int(kept.sum()) and float(before[~kept].abs().max()) <= float(before[kept].abs().min())


PART = layer(
    HeterogeneousDelays,
    name="heterogeneous-delays",
    reference=reference,
    formula=r"B_c(t, y, x) = \sum_{p, d, i, j} K_c(p, d, i, j)\, A_p(t - d, y - i, x - j) + b_c",
    paper=Paper("heterogeneous-delays"),
    tags=Tags(shape="conv", slot=""),
    toy={"c_in": 2, "c_out": 3, "kernel_size": (3, 2, 2)},
    options=(Option("dims", 3, "time, height, width", allowed=(3,)),),
    settings=({"kernel_size": (2, 3, 1), "padding": (1, 1, 0), "stride": (1, 2, 1)}, {"kernel_size": 2, "dilation": (3, 1, 2)}),
    parameters="c_out * (c_in * taps + 1)",
    products="2 * c_in * c_out * taps * places_out",
    claims=(
        Claim("events", "events one by one give the dense convolution", check=claim_events),
        Claim("shift", "shifts in time and space are shifts of the output", check=claim_shift),
        Claim("causal", "is causal", check=claim_causal),
        Claim("motion", "tells directions apart only with several delays", check=claim_motion),
        Claim("prune", "pruning keeps the largest weights", where="section 3.2", check=claim_prune),
    ),
    deviations=(
        "the sigmoid of the evidence, the threshold for spikes and the mean of the evidence over places are left to what follows",
        "the paper's circular mask, which grows with the delay, is left out: its radii aren't given",
        "so is the larger of the outputs for the events and for those with their polarities exchanged",
        "weights start as nn.Conv3d's do; the paper doesn't say",
    ),
)
