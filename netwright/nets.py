"""Hosts: the nets that parts are compared in. Ordered blocks, a readout, named slots, widths as match knobs.

Shape suffixes: B batch, D features, C channels, H W height and width, L positions, V vocabulary.
Slots are factories. activation, norm, mlp: `(channels, channel_dim) -> module`; a module's `ratio` says how it changes the
number of channels. layer, readout, head: `(d_in, d_out)`; conv: `(c_in, c_out, kernel_size, stride, padding)`;
channelwise: `(channels)`. Where nothing fills `activation`, another slot brings the nonlinearity.
Hosts have no bias before a norm and no dropout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netwright.names import unknown
from netwright.part import BadInput

Factory = Callable[..., nn.Module]

#: Host -> the slots it has beside those a task gives defaults for. A host that isn't named has none.
SLOTS: dict[str, tuple[str, ...]] = {
    "mlp": ("mlp", "layer", "head"),
    "convnet": ("mlp", "conv", "channelwise", "head"),
    "transformer": ("mlp", "layer", "head"),
    "gcn": ("mlp",),
}

#: torch's normalisations, which a task can name for its slot `norm` beside parts of that kind: channels, channel dim -> module.
NORMS: dict[str, Factory] = {
    "none": lambda channels, dim: nn.Identity(),
    "layer": lambda channels, dim: nn.LayerNorm(channels) if dim == -1 else nn.GroupNorm(1, channels),
    "batch": lambda channels, dim: nn.BatchNorm1d(channels) if dim == -1 else nn.BatchNorm2d(channels),
    "group": lambda channels, dim: nn.GroupNorm(math.gcd(8, channels), channels),
    "rms": lambda channels, dim: nn.RMSNorm(channels),
}


def norm_named(name: str) -> Factory:
    """A normalisation by name; raises UnknownName."""
    if name not in NORMS:
        raise unknown("norm", name, NORMS)
    return NORMS[name]


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
            if any(True for _ in child.parameters()) and any(any(True for _ in m.parameters()) for m in groups[-1]):
                opens = not isinstance(child, (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._BatchNorm))
                groups += [[]] if opens else []
            groups[-1].append(child)
        if len(groups) < 2:
            raise BadInput(f"the nn.Sequential has {len(groups[0])} modules in one block; a rule needs a block and a readout")
        parts = [group[0] if len(group) == 1 else nn.Sequential(*group) for group in groups]
    else:
        if not readout:
            raise BadInput("blocks= needs readout=, the module or modules that turn the last block's output into the prediction")
        parts = [*map(run, blocks), run(readout)]
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            h, shapes = example, []
            for part in parts[:-1]:
                h = part(h)
                shapes.append(tuple(h.shape[1:]))
            got, wanted = parts[-1](h), model(example)
    finally:
        for module, training in modes.items():
            module.training = training
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
    if hasattr(block, "pre") and hasattr(block, "act"):
        return block.pre, block.act
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


def pooled(h: Tensor, shape: tuple[int, ...]) -> Tensor:
    """What a linear head reads of a block's output: (B, D) and (B, L, D) as they are, (B, C, H, W) averaged over H and W."""
    return h.mean((-2, -1)) if len(shape) == 3 else h


def pooled_width(shape: tuple[int, ...]) -> int:
    """Features of `pooled` for a block of this shape."""
    return shape[0] if len(shape) == 3 else shape[-1]


def _out(activation: nn.Module, channels: int) -> int:
    """Channels after the activation; raises where they don't come out whole."""
    out = channels * getattr(activation, "ratio", 1.0)
    if out != int(out) or out < 1:
        raise BadInput(f"{activation} makes {out} of {channels} channels; choose a width it divides")
    return int(out)


def _bias(norm: nn.Module) -> bool:
    return isinstance(norm, nn.Identity)


def _activation(fill: Mapping[str, Factory], channels: int, channel_dim: int) -> nn.Module:
    make = fill.get("mlp") or fill.get("activation")
    return make(channels, channel_dim) if make else nn.Identity()


def _linear(fill: Mapping[str, Factory], slots: Sequence[str], d_in: int, d_out: int, bias: bool = True) -> nn.Module:
    """What fills the first of the slots that is filled, else a linear map."""
    make = next((fill[slot] for slot in slots if slot in fill), None)
    return make(d_in, d_out) if make else nn.Linear(d_in, d_out, bias=bias)


def _conv(fill: Mapping[str, Factory], c_in: int, c_out: int, stride: int, bias: bool) -> nn.Module:
    """A 3 x 3 convolution, or what fills its slot."""
    return fill["conv"](c_in, c_out, 3, stride, 1) if "conv" in fill else nn.Conv2d(c_in, c_out, 3, stride, 1, bias=bias)


@final
class Dense(nn.Module):
    """linear -> norm -> activation, or linear to twice the width -> gate where the slot `mlp` is filled."""

    def __init__(self, d_in: int, width: int, fill: Mapping[str, Factory]) -> None:
        super().__init__()
        wide = 2 * width if "mlp" in fill else width
        act, norm = _activation(fill, wide, -1), fill["norm"](wide, -1)
        self.linear = _linear(fill, ("layer",), d_in, wide, _bias(norm))
        self.norm = norm
        self.act = act
        self.width = _out(act, wide)

    def pre(self, x_BD: Tensor) -> Tensor:
        """What the activation reads."""
        return self.norm(self.linear(x_BD))

    def forward(self, x_BD: Tensor) -> Tensor:
        return self.act(self.pre(x_BD))


@final
class Flatten(nn.Module):
    """(B, ...) -> (B, D); inside vmap too, where the batch dimension is the first one left."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Mlp(Blocks):
    """Fully connected: input flattened, one Dense a width, a linear readout. widths: hidden widths."""

    def __init__(self, d_in: int, d_out: int, widths: Sequence[int], fill: Mapping[str, Factory]) -> None:
        blocks: list[nn.Module] = []
        shapes = []
        for i, width in enumerate(widths):
            dense = Dense(d_in, width, fill)
            blocks.append(nn.Sequential(Flatten(), dense) if i == 0 else dense)
            d_in = dense.width
            shapes.append((d_in,))
        super().__init__(blocks, _linear(fill, ("head", "readout"), d_in, d_out), shapes)


@final
class Residual(nn.Module):
    """act(norm(conv(act(norm(conv(x))))) + shortcut(x)), both convolutions 3 x 3, the first one strided."""

    def __init__(self, c_in: int, width: int, stride: int, fill: Mapping[str, Factory]) -> None:
        super().__init__()
        wide = 2 * width if "mlp" in fill else width
        norm1 = fill["norm"](wide, 1)
        norm2 = fill["norm"](wide, 1)
        self.conv1 = _conv(fill, c_in, wide, stride, _bias(norm1))
        self.norm1, self.act1 = norm1, _activation(fill, wide, 1)
        mid = _out(self.act1, wide)
        self.conv2 = _conv(fill, mid, wide, 1, _bias(norm2))
        self.norm2, self.act2 = norm2, _activation(fill, wide, 1)
        self.channelwise = fill["channelwise"](wide) if "channelwise" in fill else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or c_in != wide:
            pool: nn.Module = nn.AvgPool2d(stride) if stride != 1 else nn.Identity()
            self.shortcut = nn.Sequential(pool, nn.Conv2d(c_in, wide, 1, bias=False))
        self.width = _out(self.act2, wide)

    @property
    def act(self) -> nn.Module:
        """The last activation."""
        return self.act2

    def pre(self, x_BCHW: Tensor) -> Tensor:
        """What the last activation reads."""
        h = self.act1(self.norm1(self.conv1(x_BCHW)))
        return self.channelwise(self.norm2(self.conv2(h))) + self.shortcut(x_BCHW)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.act2(self.pre(x_BCHW))


@final
class Pool(nn.Module):
    """(B, C, H, W) -> linear map of the mean over H and W."""

    def __init__(self, channels: int, d_out: int, fill: Mapping[str, Factory]) -> None:
        super().__init__()
        self.linear = _linear(fill, ("head",), channels, d_out)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.linear(x_BCHW.mean((-2, -1)))


class ConvNet(Blocks):
    """A residual convolutional net: a 3 x 3 stem, then one Residual a width; every block but the first halves H and W.

    image: (C, H, W) of the input; stride: of the first block (2 makes the whole net about four times cheaper).
    """

    def __init__(
        self, image: tuple[int, int, int], d_out: int, widths: Sequence[int], fill: Mapping[str, Factory], stride: int = 1
    ) -> None:
        c, h, w = image
        blocks: list[nn.Module] = []
        shapes = []
        for i, width in enumerate(widths):
            step = stride if i == 0 else 2
            if i == 0:
                stem = max(8, width // 2)
                block = Residual(stem, width, step, fill)
                blocks.append(nn.Sequential(nn.Conv2d(c, stem, 3, 1, 1, bias=False), fill["norm"](stem, 1), block))
            else:
                block = Residual(c, width, step, fill)
                blocks.append(block)
            c = block.width
            h, w = -(-h // step), -(-w // step)
            shapes.append((c, h, w))
        super().__init__(blocks, Pool(c, d_out, fill), shapes)


@final
class TransformerBlock(nn.Module):
    """Pre-norm causal self-attention and a feed-forward map, both residual; hidden: width of the feed-forward map."""

    def __init__(self, d: int, heads: int, hidden: int, fill: Mapping[str, Factory]) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = fill["norm"](d, -1), fill["norm"](d, -1)
        self.qkv = nn.Linear(d, 3 * d, bias=_bias(self.norm1))
        self.out = nn.Linear(d, d)
        wide = 2 * hidden if "mlp" in fill else hidden
        self.up = _linear(fill, ("layer",), d, wide)
        self.act = _activation(fill, wide, -1)
        self.down = _linear(fill, ("layer",), _out(self.act, wide), d)

    def forward(self, x_BLD: Tensor) -> Tensor:
        b, n, d = x_BLD.shape
        q, k, v = self.qkv(self.norm1(x_BLD)).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BLD = x_BLD + self.out(mixed.transpose(1, 2).reshape(b, n, d))
        return x_BLD + self.down(self.act(self.up(self.norm2(x_BLD))))


@final
class Embed(nn.Module):
    """Tokens (B, L) -> (B, L, D): a learnt vector a token plus one a position."""

    def __init__(self, vocabulary: int, length: int, d: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, d)
        self.position = nn.Embedding(length, d)
        self.scale = 1 / math.sqrt(d)  # torch draws embeddings with variance 1; the residual stream starts at 2/d

    def forward(self, x_BL: Tensor) -> Tensor:
        places = torch.arange(x_BL.shape[-1], device=x_BL.device)
        return (self.token(x_BL) + self.position(places)) * self.scale


class TinyTransformer(Blocks):
    """A causal language model: embeddings, one TransformerBlock a width, norm and linear readout over the vocabulary.

    widths: feed-forward widths, one a block.
    """

    def __init__(
        self, vocabulary: int, length: int, d: int, heads: int, widths: Sequence[int], fill: Mapping[str, Factory]
    ) -> None:
        if d % heads:
            raise BadInput(f"d={d} is not a multiple of heads={heads}")
        blocks: list[nn.Module] = [TransformerBlock(d, heads, hidden, fill) for hidden in widths]
        blocks[0] = nn.Sequential(Embed(vocabulary, length, d), blocks[0])
        readout = nn.Sequential(fill["norm"](d, -1), _linear(fill, ("head",), d, vocabulary))
        super().__init__(blocks, readout, [(length, d)] * len(widths))


def count_parameters(module: nn.Module) -> int:
    """Trainable values, shared ones once."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def fill_named(parts: Mapping[str, Any]) -> dict[str, Factory]:
    """Factories for the slots of a host from {slot: "norm name" | (part, options)}; parts are asked to build themselves."""
    fill: dict[str, Factory] = {}
    for slot, value in parts.items():
        fill[slot] = norm_named(value) if isinstance(value, str) else value[0].factory(value[1])
        if slot == "layer" and value[0].tags.readout:
            fill["readout"] = fill[slot]
    return fill
