"""The kind `loss`: a pure function of outputs and targets, which says what every example costs and how much it counts.

def loss(out, y, **options) -> Terms                        # the subject: pairs of values (B,) and weights (B,)

The loss of a batch is the sum over terms of sum(values weights) / sum(weights). Weights depend on y alone: 1, or how many
positions of an example count, or 0. Where y has positions, (B, L), an example's value is the mean over those that count.
It works under torch.func.vmap and grad and torch.compile, in float64, and for scores of half precision in float32 inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.catalogue import arrived, travelling
from netwright.core.errors import BadInput, Misfit
from netwright.core.kind import LOSS, TRAIN, Kind
from netwright.core.part import Option, Part
from netwright.tensor.terms import Terms, reduced

#: Raised by hand when numbers of this file move; tests/golden fails when they move and this did not.
KIND_VERSION = 1

#: What a loss reads -> what a problem has to give for it: scores (B, ..., K) of labels (B, ...); values of y's own shape;
#: one score, or two, of labels 0 and 1; lists (B, N) of scores with a worth each; cumulative scores (B, K - 1) of grades.
OUTPUTS: dict[str, frozenset[str]] = {
    "scores": frozenset({"labels"}),
    "values": frozenset({"targets"}),
    "binary": frozenset({"labels", "two classes"}),
    "lists": frozenset({"lists"}),
    "ordinal": frozenset({"grades"}),
}
IGNORED = Option("ignore_index", -100, "labels of this value count for nothing")


@final
@dataclass(frozen=True)
class Tags:
    """What a loss declares; the contract checks verify each.

    outputs: what it reads, of OUTPUTS. soft: targets may be probabilities. batchwise: an example's value depends on the others
    of its batch, so that pieces of a batch don't add up. shift, scale: adding one number to all of an example's outputs, or
    multiplying them by one above 0, changes nothing. proper: the true probabilities are the best ones. convex: in out.
    least: the value that the perfect prediction has in the limit; None where there is none, with a reason. usual: problems
    that give this and name no loss lower it.
    """

    outputs: str = "scores"
    soft: bool = False
    batchwise: bool = False
    shift: bool = False
    scale: bool = False
    proper: bool = False
    convex: bool = False
    least: float | None = 0.0
    usual: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict)  # check -> why it is not the usual

    def __post_init__(self) -> None:
        if self.outputs not in OUTPUTS:
            raise BadInput(f"Tags outputs={self.outputs!r}; allowed: {', '.join(OUTPUTS)}")


@final
@dataclass(frozen=True, kw_only=True)
class LossPart(Part):
    """A loss, declared by `loss(function, ...)`. `build()` is a module of outputs and targets.

    reference(out, y, **options) -> [(value, weight) of each example] for each term: the second writing, of nested lists of
    Python numbers in, by the paper's own words. mean: a faster function of (out, y), the loss at the defaults of a batch of
    which every example counts, which trainings use in place of the terms. values: (out, y, the loss at the defaults), known
    on paper. settings: options to check besides the defaults. columns: how many outputs an example has in the checks.
    """

    reference: Callable[..., list[list[tuple[float, float]]]]
    mean: Callable[..., Tensor] | None = None
    values: tuple[tuple[Any, Any, float], ...] = ()
    settings: tuple[Mapping[str, Any], ...] = ()
    columns: int = 4
    tags: Tags = Tags()

    @property
    def kind(self) -> str:
        return "loss"

    def slots(self) -> tuple[str, ...]:
        return (LOSS,)

    @property
    def needs(self) -> frozenset[str]:
        return OUTPUTS[self.tags.outputs]

    @property
    def ignores(self) -> bool:
        """Whether labels can be told to count for nothing."""
        return IGNORED.name in {option.name for option in self.options}

    def terms(self, out: Tensor, y: Tensor, **options: Any) -> Terms:
        """Values and weights of every example."""
        return self.subject(out, y, **self.resolve(options))

    def of_batch(self, out: Tensor, y: Tensor, of: Sequence[Any] | None = None, **options: Any) -> Tensor:
        """The loss, a scalar. options: all of them, resolved. of: totals of weights to divide by: see `totals`."""
        if of is not None and self.tags.batchwise:
            raise Misfit(f"{self.id} reads all examples of a batch together: it can't be computed piece by piece")
        return reduced(self.subject(out, y, **options), of)

    def totals(self, out: Tensor, y: Tensor, **options: Any) -> tuple[Tensor, ...]:
        """The sums of weights, one a term. They depend on y alone: out may be zeros of the outputs' shape."""
        return tuple(term.weights.sum() for term in self.subject(out, y, **options))

    def build(self, **options: Any) -> nn.Module:
        """A module: loss(out, y) -> scalar. Raises BadInput, UnknownName."""
        return Loss(self, self.resolve(options))


@final
class Loss(nn.Module):
    """A loss with its options. `loss(out, y)` is that of a batch; `.terms(out, y)` are values and weights of each example.

    Over pieces of a batch, `of` keeps the mean exact: totals = loss.totals(whole_out_or_zeros, whole_y), then the sum of
    loss(out, y, of=totals) over the pieces is the loss of the whole.
    """

    def __init__(self, part: LossPart, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.part, self.options = part, dict(options)

    def forward(self, out: Tensor, y: Tensor, of: Sequence[Any] | None = None) -> Tensor:
        return self.part.of_batch(out, y, of, **self.options)

    def terms(self, out: Tensor, y: Tensor) -> Terms:
        """Values and weights of every example."""
        return self.part.terms(out, y, **self.options)

    def totals(self, out: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """The sums of weights of a whole step, one a term; out may be zeros of its outputs' shape."""
        return self.part.totals(out, y, **self.options)

    def __reduce__(self) -> Any:
        return _again, (travelling(self.part), self.options)

    def extra_repr(self) -> str:
        return ", ".join([self.part.name, *(f"{k}={v!r}" for k, v in self.options.items())])


def _again(part: Any, options: dict[str, Any]) -> nn.Module:
    return arrived(part).build(**options)


def full(out: Tensor) -> Tensor:
    """Half precision as float32, in which losses are computed."""
    return out.float() if out.dtype in (torch.float16, torch.bfloat16) else out


loss = LossPart

KIND = Kind("loss", "losses", "what training lowers: a value and a weight for every example", TRAIN, slots=(LOSS,))
