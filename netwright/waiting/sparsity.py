"""How sparse a net's activations are: exact zeros, and what can be switched off before the perplexity suffers.

PPL-p % sparsity (Luo et al., "Sparsing Law", arXiv 2411.02335). The neurons of an MLP are the inputs a of its down
projection W. Neuron i of a token weighs n_i = |a_i| ||W_i||, W_i its column of W. Switching off all with n_i <= T costs
    CETT(T) = mean over tokens of || sum of the a_i W_i switched off || / || W a ||.
Each block gets the largest T that costs at most one CETT, the same for all blocks, and that CETT is the largest for which
the perplexity stays within a factor 1 + p of the dense net's. The share of neurons off is then the PPL-p % sparsity.

Shape suffixes: T tokens, N neurons, O outputs of the down projection.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.core.errors import BadInput
from netwright.tensor.tap import evaluating, tapped

CANDIDATES = 65_536  # thresholds tried, evenly spaced, as in the official code
TOP = 0.99  # up to this quantile of the magnitudes, likewise
HALVINGS = 14  # of the interval [0, 1] of CETT


def nonzero_share(h: Tensor) -> float:
    """The share of entries of h that aren't exactly 0: the measure of "The Lazy Neuron Phenomenon" (Li et al., 2022)."""
    if h.numel() == 0:
        raise BadInput("nonzero_share: h has no entries; give at least one")
    return float((h != 0).double().mean())


def magnitudes(a_TN: Tensor, w_ON: Tensor) -> Tensor:
    """What each neuron contributes to the output in length: |a_i| ||W_i||. Shape (T, N), float32 or float64."""
    a_TN, w_ON = _checked(a_TN, w_ON)
    return a_TN.abs() * w_ON.norm(dim=0)


def cett(a_TN: Tensor, w_ON: Tensor, threshold: float) -> float:
    """The cumulative error of switching off the neurons of magnitude <= threshold, as a share of the output's length.

    a: (T, N), or with more leading dimensions. w: (O, N), the weight of the nn.Linear that takes a; its bias stays out.
    A token whose output is 0 costs nothing where nothing is lost.
    """
    return _error(*_checked(a_TN, w_ON))(threshold)


def threshold_for_cett(a_TN: Tensor, w_ON: Tensor, target: float) -> float:
    """The largest threshold whose CETT is at most target, by bisection; 0 where none of the candidates qualifies.

    Candidates are 65,536 values from the smallest magnitude to the 99th percentile, as in the official code. The error is
    taken to grow with the threshold. Shapes as for `cett`; raises BadInput for a target below 0.
    """
    if not target >= 0:
        raise BadInput(f"threshold_for_cett: target={target!r}; allowed: a number of at least 0")
    a_TN, w_ON = _checked(a_TN, w_ON)
    error = _error(a_TN, w_ON)
    ordered = magnitudes(a_TN, w_ON).flatten().sort().values
    least, most = float(ordered[0]), float(ordered[math.ceil(TOP * (len(ordered) - 1))])

    def candidate(index: int) -> float:
        return least + (most - least) * index / (CANDIDATES - 1)

    best = _last(CANDIDATES, lambda index: error(candidate(index)) <= target)
    return 0.0 if best is None else candidate(best)


@final
@dataclass(frozen=True)
class PplSparsity:
    """share: of the neurons, off. cett: the error allowed. perplexity: with them off; dense: with none off.

    thresholds: {path of the down projection: magnitude up to which its neurons are off}, as `switched_off` takes them.
    """

    share: float
    cett: float
    perplexity: float
    dense: float
    thresholds: Mapping[str, float]


@torch.no_grad()
def ppl_sparsity(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], blocks: Sequence[str], p: float = 0.01
) -> PplSparsity:
    """The share of neurons that can be switched off while the perplexity stays within a factor 1 + p. Changes nothing.

    model: input -> logits (..., classes). batches: (input, classes), a few; the neurons of all of them are held in memory.
    blocks: the paths of the down projections, each an nn.Linear, e.g. "blocks.0.mlp.down". p: 0.01 for PPL-1 %.
    The CETT is found by bisection: the perplexity is taken to grow with it.
    """
    if not (isinstance(p, (int, float)) and p >= 0):
        raise BadInput(f"ppl_sparsity: p={p!r}; allowed: a number of at least 0, such as 0.01")
    layers = {path: _linear(model, path) for path in blocks}
    held = list(batches)
    if not held or not layers:
        raise BadInput("ppl_sparsity: got no batch or no block; give at least one of each")
    neurons: dict[str, list[Tensor]] = {path: [] for path in layers}

    def note(path: str, layer: nn.Module, args: Any, kwargs: Any) -> None:
        neurons[path].append(args[0].flatten(0, -2))

    with evaluating(model):
        with tapped(layers, before=note):
            dense = _perplexity(model, held)
        known = {path: torch.cat(seen) for path, seen in neurons.items()}

        def at(index: int) -> PplSparsity:
            target = index / 2**HALVINGS
            limits = {path: threshold_for_cett(a, layers[path].weight, target) for path, a in known.items()}
            with switched_off(model, limits) as count:
                perplexity = _perplexity(model, held)
            return PplSparsity(count.off / count.all, target, perplexity, dense, limits)

        best = _last(2**HALVINGS + 1, lambda index: at(index).perplexity <= (1 + p) * dense)
        return at(best or 0)


@dataclass
class Count:
    """Neurons seen and neurons switched off, over all tokens and blocks so far."""

    off: int = 0
    all: int = 0

    @property
    def share(self) -> float:
        return self.off / max(1, self.all)


@contextmanager
def switched_off(model: nn.Module, thresholds: Mapping[str, float]) -> Iterator[Count]:
    """Within it each down projection named gets 0 for its neurons of magnitude <= its threshold; yields their count."""
    layers = {path: _linear(model, path) for path in thresholds}
    lengths = {path: layer.weight.detach().float().norm(dim=0) for path, layer in layers.items()}
    count = Count()

    def switch(path: str, layer: nn.Module, args: Any, kwargs: Any) -> Any:
        a: Tensor = args[0]
        off = a.float().abs() * lengths[path] <= thresholds[path]
        count.off += int(off.sum())
        count.all += off.numel()
        return (a.masked_fill(off, 0.0),), kwargs

    with tapped(layers, before=switch):
        yield count


def _checked(a: Tensor, w_ON: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32 at least, a with its leading dimensions made one; raises BadInput where they don't fit."""
    if w_ON.dim() != 2 or a.dim() < 2 or a.shape[-1] != w_ON.shape[1] or a.numel() == 0:
        raise BadInput(
            f"activations of shape {tuple(a.shape)} with a weight of shape {tuple(w_ON.shape)}; "
            "expected (tokens, neurons) with at least one token, and (outputs, neurons)"
        )
    work = torch.promote_types(torch.promote_types(a.dtype, w_ON.dtype), torch.float32)
    return a.detach().flatten(0, -2).to(work), w_ON.detach().to(work)


def _error(a_TN: Tensor, w_ON: Tensor) -> Callable[[float], float]:
    """CETT as a function of the threshold alone."""
    n_TN, whole_T = magnitudes(a_TN, w_ON), F.linear(a_TN, w_ON).norm(dim=1)

    def error(threshold: float) -> float:
        lost_T = F.linear(a_TN * (n_TN <= threshold), w_ON).norm(dim=1)
        return float(torch.where(lost_T > 0, lost_T / whole_T, 0.0).mean())

    return error


def _last(count: int, holds: Callable[[int], bool]) -> int | None:
    """The last of range(count) where holds() is true, if it is true up to somewhere and false from there on; by bisection."""
    low, high = -1, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low if low >= 0 else None


def _linear(model: nn.Module, path: str) -> nn.Linear:
    try:
        found = model.get_submodule(path)
    except AttributeError:
        known = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        raise BadInput(f"no module at {path!r}; linear layers are at: {', '.join(known) or 'none'}") from None
    if not isinstance(found, nn.Linear):
        raise BadInput(f"{path!r} is {type(found).__name__}; expected an nn.Linear, the down projection of an MLP")
    return found


def _perplexity(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> float:
    """exp of the mean cross-entropy over all targets."""
    total, count = 0.0, 0
    for x, y in batches:
        logits = model(x)
        total += float(F.cross_entropy(logits.flatten(0, -2).float(), y.flatten(), reduction="sum"))
        count += y.numel()
    return math.exp(total / count)
