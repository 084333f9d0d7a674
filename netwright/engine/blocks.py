"""Blocks: ordered blocks and a readout, the form of a net that local rules train; and how a block is taken apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput, unknown
from netwright.tensor.tap import evaluating

Factory = Callable[..., nn.Module]


class Blocks(nn.Module):
    """Ordered blocks and a readout: x -> block 1 -> ... -> block n -> readout. Base of every host, and free to be used as is.

    shapes: the shape of one example after each block, e.g. (256,), (C, H, W) or (L, D): what local heads are built from.
    """

    def __init__(self, blocks: Sequence[nn.Module], readout: nn.Module, shapes: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        if len(blocks) != len(shapes):
            raise BadInput(f"{len(blocks)} blocks but {len(shapes)} shapes; give the shape of one example after each block")
        self.blocks = nn.ModuleList(blocks)
        self.readout = readout
        self.shapes = tuple(tuple(s) for s in shapes)

    @staticmethod
    def of(
        model: nn.Module, example: Tensor, blocks: Sequence[str | Sequence[str]] | None = None, readout: str | Sequence[str] = ""
    ) -> Blocks:
        """A model's own modules as Blocks, so that a rule can train it: they are shared, not copied.

        example: an input batch; the blocks run on it once, in evaluation mode, for their shapes.
        blocks, readout: names of the model's modules in the order they run, several in one block as a list, e.g.
        blocks=[["conv1", "bn1", "relu"], "layer1"], readout=["avgpool", "flatten", "fc"]; "flatten" stands for
        torch.flatten(x, 1) where the model has no module of that name. Without them an nn.Sequential is taken apart: each
        module with parameters opens a block, those without join it, and the last block is the readout.
        Raises BadInput where a name is unknown or the blocks together don't compute what the model computes.
        """
        return _blocks_of(model, example, blocks, readout)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.readout(x)

    def features(self, x: Tensor) -> list[Tensor]:
        """The output of every block, in order."""
        out = []
        for block in self.blocks:
            x = block(x)
            out.append(x)
        return out


def _blocks_of(
    model: nn.Module, example: Tensor, blocks: Sequence[str | Sequence[str]] | None, readout: str | Sequence[str]
) -> Blocks:
    modules = dict(model.named_modules())
    modules.setdefault("flatten", Flatten())

    def run(names: str | Sequence[str]) -> nn.Module:
        found = []
        for name in [names] if isinstance(names, str) else names:
            if name not in modules or not name:
                raise unknown("module", name, [n for n in modules if n], owner=type(model).__name__)
            found.append(modules[name])
        return found[0] if len(found) == 1 else nn.Sequential(*found)

    if blocks is None:
        if not isinstance(model, nn.Sequential):
            raise BadInput(
                f"{type(model).__name__} doesn't say in which order its modules run; name them: Blocks.of(model, example,"
                f" blocks=[...], readout=...); it has {', '.join(name for name, _ in model.named_children()) or 'none'}"
            )
        groups: list[list[nn.Module]] = [[]]
        for child in model:
            if any(p.dim() > 1 for p in child.parameters()) and any(any(True for _ in m.parameters()) for m in groups[-1]):
                groups.append([])  # a norm or a learnt slope, which holds vectors alone, belongs to what stands before it
            groups[-1].append(child)
        if len(groups) < 2:
            raise BadInput(f"the nn.Sequential has {len(groups[0])} modules in one block; a rule needs a block and a readout")
        parts = [group[0] if len(group) == 1 else nn.Sequential(*group) for group in groups]
    else:
        if not readout:
            raise BadInput("blocks= needs readout=, the module or modules that turn the last block's output into the prediction")
        parts = [*map(run, blocks), run(readout)]
    with evaluating(model), torch.no_grad():
        h, shapes = example, []
        for part in parts[:-1]:
            h = part(h)
            shapes.append(tuple(h.shape[1:]))
        got, wanted = parts[-1](h), model(example)
    if got.shape != wanted.shape or not torch.equal(got, wanted):
        raise BadInput(
            f"the blocks, run in this order, don't compute what {type(model).__name__} computes on the example; name every"
            " module that its forward runs, in that order"
        )
    return Blocks(parts[:-1], parts[-1], shapes)


def split(block: nn.Module) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """(pre, act) with block(x) = act(pre(x)): a block's last activation apart from all before it.

    A block that has `pre` and `act` says so itself. Of a Sequential the last module is split, or is the activation where it
    holds no parameters; of a block without a last activation (a transformer's) pre is the block and act the identity.
    """
    own: Any = block
    if hasattr(own, "pre") and hasattr(own, "act"):
        return own.pre, own.act
    if isinstance(block, nn.Sequential) and len(block):
        *first, last = block
        pre, act = split(last)
        if not any(True for _ in last.parameters()) and len(first) > 0:
            pre, act = (lambda x: x), last

        def through(x: Tensor) -> Tensor:
            for module in first:
                x = module(x)
            return pre(x)

        return through, act
    return block, lambda x: x


def keeps_statistics(module: nn.Module) -> bool:
    """Whether a module keeps running statistics of its batches, as a batch norm does."""
    return isinstance(getattr(module, "running_mean", None), Tensor)


def pooled(h: Tensor, shape: tuple[int, ...]) -> Tensor:
    """What a linear head reads of a block's output: (B, D) and (B, L, D) as they are, (B, C, H, W) averaged over H and W."""
    return h.mean((-2, -1)) if len(shape) == 3 else h


def pooled_width(shape: tuple[int, ...]) -> int:
    """Features of `pooled` for a block of this shape."""
    return shape[0] if len(shape) == 3 else shape[-1]


@final
class Flatten(nn.Module):
    """(B, ...) -> (B, D); inside vmap too, where the batch dimension is the first one left."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def count_parameters(module: nn.Module) -> int:
    """Trainable values, shared ones once."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
