"""Rule: a net and the way it learns, as losses whose gradient at each parameter is its update."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor, nn

from netwright.core.errors import Misfit
from netwright.engine.blocks import Blocks
from netwright.engine.graph import on_graph
from netwright.engine.task import Problem
from netwright.tensor.modules import Ready
from netwright.tensor.streams import initialise


@final
@dataclass(frozen=True)
class Phase:
    """A stretch of training: a share of the steps; the rule is told through enter(phase)."""

    name: str
    share: float = 1.0


def require_blocks(net: object, who: str) -> None:
    """Raises Misfit, saying how to declare them, where a net has no ordered blocks."""
    if on_graph(net):
        raise Misfit(
            f"{who} needs a net of ordered blocks that take a batch, and a {type(net).__name__}'s blocks take the whole graph;"
            " choose a rule that trains any net, or one made for graphs"
        )
    if not isinstance(net, Blocks):
        raise Misfit(
            f"{who} needs a net of ordered blocks (netwright.engine.blocks.Blocks), given {type(net).__name__}; an nn.Sequential"
            " becomes one by Blocks.of(net, example), any other model by Blocks.of(model, example, blocks=['stem', 'layer1',"
            " ...], readout='head'), which names its modules in the order they run"
        )


class Rule(nn.Module, metaclass=Ready):
    """A net and the way it learns. Abstract: a rule implements `forward` and `losses`, and what else it needs.

    net: Blocks (ordered blocks and a readout); problem: Problem (loss, metric, output shape, encode(y)).
    any_net: the rule takes any module for a net; where it doesn't, a net that isn't Blocks raises Misfit.
    """

    any_net: ClassVar[bool] = False

    def __init__(self, net: Blocks, problem: Problem) -> None:
        super().__init__()
        if not self.any_net:
            require_blocks(net, type(self).__name__)
        self.net = net
        self.problem = problem

    @final
    def redraw(self, seed: int) -> None:
        """Draw what the rule adds to the net (heads, feedback) by this seed; the net stays as it is."""
        initialise(self, seed, skip="net")

    @final
    def _fill(self) -> None:
        """Modules of the rule's own hold empty tensors until they are drawn; building draws by 0."""
        self.redraw(0)

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The prediction for x (B, *input): (B, *output). Changes nothing."""

    def draw(self, x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """All randomness of one step, drawn outside it; passed to losses as *draws."""
        return ()

    @abstractmethod
    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Iterator[Tensor]:
        """One scalar a unit, in the order of units(). Reads nothing that a step changes between two yields."""

    def features(self, x: Tensor) -> list[Tensor]:
        """What each block puts out when predicting, in order: what probes of single layers read. Changes nothing."""
        return self.net.features(x)

    def units(self) -> Sequence[Sequence[nn.Parameter]]:
        """Disjoint groups of parameters, one optimizer each; the last holds what several losses share. Default: one."""
        return [[p for p in self.parameters() if p.requires_grad]]

    def after_step(self) -> None:
        """Projections, running averages, codebooks; once a step, after the last unit. Default: nothing."""

    def phases(self) -> Sequence[Phase]:
        """Stretches of training in order; their shares sum to 1. Default: one."""
        return (Phase("train"),)

    def enter(self, phase: Phase) -> None:
        """Called before the first step of each phase. Default: nothing."""

    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Closed-form training over one pass of batches, where tags.closed_form."""
        raise Misfit(f"{type(self).__name__} has no closed form: train it with an optimizer on its losses")


# For references, claims and checks ------------------------------------------------------------------------------------


def trainable(*modules: nn.Module) -> list[nn.Parameter]:
    """The parameters of these modules that learn, in order, each once."""
    return list(dict.fromkeys(p for module in modules for p in module.parameters() if p.requires_grad))
