"""Feedback alignment and its relatives for a model that exists: one call, then train it as ever.

    converted = convert(model, "sign-symmetry")     # or "feedback-alignment", or "dfa" with example=
    print(converted)                                # which layers got feedback, and which not, and why
    loss(converted.model(x), y).backward()          # any loss, any optimizer

The forward pass, the weights and their names stay as they were; what is added is buffers. Normalisations, activations,
pooling, residual sums and attention keep exact gradients of whatever signal reaches them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from netwright.core.errors import BadInput, Misfit, printable, unknown
from netwright.rules.feedback._aligned import Aligned, FeedbackWeights, aligned, obstacle, owners, put, weighty
from netwright.rules.feedback._direct import DirectFeedback, given, install, runs
from netwright.surgery.untouched import call, quiet, unrunnable, untouched
from netwright.tensor.streams import generator
from netwright.tensor.tap import tapped

__all__ = ["Conversion", "LayerRow", "angles", "convert"]

#: Rule -> what its layers do, in the report.
RULES = {
    "feedback-alignment": "send the error back through fixed random weights",
    "sign-symmetry": "send the error back through the signs of their weights",
    "dfa": "get the error of the model's output at their input",
}
VARIANTS = ("uniform", "fixed", "redrawn")
MAPS = ("full", "channels")
Made = FeedbackWeights | DirectFeedback
MOST = 2**29  # values of all direct feedback together: 2 GiB in float32


@final
@dataclass(frozen=True)
class LayerRow:
    """One layer with weights. feedback: what it got, "" for none; values: of its buffer; why: it got none."""

    path: str
    type: str
    feedback: str = ""
    values: int = 0
    why: str = ""


@final
@dataclass(frozen=True)
class Conversion:
    """A converted model, and what was done to each of its layers with weights, in order. `print` shows it as a table."""

    model: nn.Module
    rule: str
    layers: tuple[LayerRow, ...]

    @property
    def converted(self) -> tuple[LayerRow, ...]:
        return tuple(layer for layer in self.layers if layer.feedback)

    @property
    def skipped(self) -> tuple[LayerRow, ...]:
        """Layers that keep the exact gradient at their input."""
        return tuple(layer for layer in self.layers if not layer.feedback)

    def __str__(self) -> str:
        done, values = self.converted, sum(layer.values for layer in self.layers)
        text = [f"{self.rule}: {len(done)} of {len(self.layers)} layers {RULES[self.rule]}; {values:,} values in buffers"]
        rows = [("path", "layer", "feedback", "kept exact because")]
        rows += [(printable(x.path) or "(the model)", x.type, x.feedback, x.why) for x in self.layers]
        wide = [max(len(row[i]) for row in rows) for i in range(3)]
        text += ["  " + "  ".join([*(c.ljust(w) for c, w in zip(row, wide, strict=False)), row[3]]).rstrip() for row in rows]
        return "\n".join(text)


def convert(
    model: nn.Module,
    rule: str = "feedback-alignment",
    *,
    example: Any = None,
    exact: str | Sequence[str] = (),
    variant: str = "uniform",
    maps: str = "full",
    scale: float = 1.0,
    seed: int = 0,
    in_place: bool = False,
) -> Conversion:
    """A copy of the model (or itself, with in_place) that learns by this rule under an ordinary `loss.backward()`.

    rule: "feedback-alignment" (Lillicrap et al., 2014), "sign-symmetry" (Liao et al., 2016): linear layers and convolutions
        send the error back through other weights; "dfa" (Nokland, 2016): the gradient at the input of each is the error at
        the model's output, which has to be one tensor (B, ...), times a fixed random matrix.
    example: an input, as for swap: a tensor, a tuple of positional or a mapping of keyword arguments. "dfa" needs it for the
        shapes; for the others it tells the layers that are not called, and the first, whose feedback nobody reads.
    exact: paths or patterns of layers that keep exact gradients, e.g. "fc" to leave the readout as it is.
    variant: of sign symmetry: the magnitudes of the feedback are "uniform", random and "fixed", or "redrawn" by torch's
        default generator in every training forward.
    maps: of dfa: every element of a map (B, C, H, W) or sequence has its own random weights ("full"), or every channel has
        ("channels"). Where the output has the positions of a layer's input, (B, L, K) and (B, L, N), each gets its own error.
    scale: factor on the feedback. Its root mean square is that of the layer's weights now; of dfa it is drawn from
        U(-1, 1) / sqrt(K).
    seed: the feedback is drawn from it and the path; the global generators stay untouched.

    Evaluation gives the same bits as before. The state_dict has the keys it had and `<layer>.feedback.matrix`; weights go
    back into the original with load_state_dict(..., strict=False). Of dfa, calls of a part of the model alone have exact
    gradients; nn.DataParallel and gradient checkpointing don't know of its feedback.
    Raises BadInput for a model that is compiled, scripted, lazy, wrapped for data parallelism or converted already,
    UnknownName for an unknown rule or layer, Misfit where no layer can be converted.
    """
    _check(model, rule, variant, maps, scale, example, in_place)
    called = None if example is None else _look(model, example)
    layers: list[LayerRow] = []
    chosen: dict[str, nn.Module] = {}
    patterns, held = [exact] if isinstance(exact, str) else list(exact), owners(model)
    found = dict(weighty(model))
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in found):
            raise unknown("layer", pattern, found, owner=type(model).__name__)
    for path, module in found.items():
        if any(fnmatchcase(path, pattern) for pattern in patterns):
            why = "asked for"
        elif called is not None and id(module) not in called.inputs:
            why = "not called by the example"
        elif called is not None and id(module) not in called.below:
            why = "the first layer: nothing below it learns"
        else:
            why = _no_tap(module, called) if rule == "dfa" and called else obstacle(module, held)
        layers.append(LayerRow(path, type(module).__name__, why=why))
        if not why:
            chosen[path] = module
    if not chosen:
        said = "; ".join(f"{layer.path or 'the model'}: {layer.why}" for layer in layers) or "it has no weights"
        raise Misfit(f"no layer of {type(model).__name__} can be converted to {rule}: {said}")
    feedback = {path: _made(module, rule, called, variant, maps, scale) for path, module in chosen.items()}
    total = sum(made.matrix.numel() for made in feedback.values())
    if rule == "dfa" and total > MOST:
        raise BadInput(f"the feedback would have {total:,} values, over {MOST:,}; use maps='channels', or exact= for some layers")
    for path, made in feedback.items():
        made.reset_parameters(generator(seed, "init", f"{path}.feedback"))
    if not in_place:
        model = copy.deepcopy(model)
    return Conversion(_converted(model, feedback), rule, tuple(_described(layer, feedback.get(layer.path)) for layer in layers))


def _made(module: Any, rule: str, called: _Called | None, variant: str, maps: str, scale: float) -> Made:
    """The feedback of one layer, not drawn yet."""
    if rule == "dfa" and called is not None:
        return DirectFeedback(module, called.inputs[id(module)][0], called.output, maps, scale)
    rms = float(module.weight.detach().double().square().mean().sqrt())
    return FeedbackWeights(module.weight, "random" if rule == "feedback-alignment" else variant, scale, rms)


def _check(model: Any, rule: str, variant: str, maps: str, scale: float, example: Any, in_place: bool) -> None:
    if not isinstance(model, nn.Module):
        raise BadInput(f"model is {type(model).__name__}; expected an nn.Module")
    if any(is_lazy(p) or p.is_meta for p in model.parameters()):
        raise BadInput(f"{type(model).__name__} has parameters without values; initialise it first (lazy layers: run it once)")
    for what, name, known in (("rule to convert to", rule, RULES), ("variant", variant, VARIANTS), ("kind of maps", maps, MAPS)):
        if name not in known:
            raise unknown(what, name, known)
    if not (isinstance(scale, (int, float)) and 0 < scale < math.inf):
        raise BadInput(f"scale={scale!r}; allowed: a number above 0")
    kinds = {cls.__name__ for m in model.modules() for cls in type(m).__mro__}
    if isinstance(model, torch.jit.ScriptModule) or kinds & {"OptimizedModule", "ScriptModule"}:
        raise BadInput(f"{type(model).__name__} is compiled or scripted; convert the original model and compile that")
    if wrapped := sorted(kinds & {"DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"}):
        raise BadInput(f"{wrapped[0]} would not know of the feedback; convert the model, then wrap it")
    if any(isinstance(m, Aligned) for m in model.modules()) or runs(model):
        raise BadInput(f"{type(model).__name__} was converted already; convert the model it was made from")
    if rule == "dfa" and example is None:
        raise BadInput("dfa needs example=, a batch of inputs: its matrices have the sizes of the layers' inputs and the output")
    if in_place and rule != "dfa" and isinstance(model, (nn.Linear, nn.modules.conv._ConvNd)):
        raise BadInput("a layer can't be replaced in place by itself; leave in_place out and take the model that comes back")


def _described(layer: LayerRow, made: Made | None) -> LayerRow:
    if made is None:
        return layer
    shape = "x".join(map(str, made.matrix.shape))
    what = f"{made.kind} {shape}" if shape else f"{made.kind}, {float(made.matrix):.3g}"
    return LayerRow(layer.path, layer.type, what, made.matrix.numel())


def _converted(model: nn.Module, feedback: dict[str, Made]) -> nn.Module:
    direct = {path: made for path, made in feedback.items() if isinstance(made, DirectFeedback)}
    if direct:
        return install(model, direct)
    chosen = {path: (model.get_submodule(path), made) for path, made in feedback.items()}
    return put(model, {id(old): aligned(old, made) for old, made in chosen.values() if isinstance(made, FeedbackWeights)})


# The example ----------------------------------------------------------------------------------------------------------


@final
@dataclass
class _Called:
    """What the example showed: of each layer the shapes of its inputs and whether a parameter lies below; the output's."""

    inputs: dict[int, list[tuple[int, ...]]]
    below: set[int]
    output: tuple[int, ...]


def _look(model: nn.Module, example: Any) -> _Called:
    """Runs the example in evaluation mode; leaves the model as it was."""
    seen = _Called({}, set(), ())
    frozen = [p for p in model.parameters() if p.is_floating_point() and not p.requires_grad]

    def note(path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        x = given(args, kwargs)
        seen.inputs.setdefault(id(module), []).append(tuple(x.shape) if isinstance(x, Tensor) else ())
        if isinstance(x, Tensor) and x.requires_grad:
            seen.below.add(id(module))

    try:
        with quiet(model), torch.enable_grad(), tapped(weighty(model), before=note):
            for p in frozen:
                p.requires_grad_(True)  # what is frozen now may be thawed later
            output = call(model, example)
    except Exception as error:  # the user's own forward may raise anything
        raise unrunnable(error) from error
    finally:
        for p in frozen:
            p.requires_grad_(False)
    seen.output = tuple(output.shape) if isinstance(output, Tensor) else ()
    return seen


def _no_tap(module: nn.Module, called: _Called) -> str:
    """Why the gradient at a layer's input can't be replaced by direct feedback, or ''."""
    if len(called.output) < 2:
        raise Misfit(
            "dfa needs a model whose output is one tensor (B, ...); wrap it in a module that returns the one you train on"
        )
    shapes = called.inputs[id(module)]
    if not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
        return f"{type(module).__name__} multiplies in its own forward"
    if any(len(shape) < 2 or shape[0] != called.output[0] for shape in shapes):
        return f"its input {'x'.join(map(str, shapes[0]))} has not the output's {called.output[0]} rows"
    if len({shape[1:] for shape in shapes}) > 1:
        return "called with inputs of several shapes"
    return ""


# How far it is from backpropagation -----------------------------------------------------------------------------------


@contextmanager
def backpropagation(model: nn.Module) -> Iterator[None]:
    """Inside, a converted model has exact gradients."""
    switches: list[Any] = [*(m for m in model.modules() if isinstance(m, Aligned)), *runs(model)]
    for switch in switches:
        switch.exact = True
    try:
        yield
    finally:
        for switch in switches:
            switch.exact = False


def angles(model: nn.Module, loss: Callable[[], Tensor]) -> dict[str, float]:
    """The angle in degrees between a converted model's update and backpropagation's, by the path of each trainable module.

    loss: computes the loss of a batch, e.g. lambda: F.cross_entropy(model(x), y); it is called twice, and gradients,
        running statistics and generators are left as they are. 90 degrees: the update is unrelated to the gradient; NaN:
        one of them is zero.
    """
    named = {path: [p for p in m.parameters(recurse=False) if p.requires_grad] for path, m in model.named_modules()}
    params = list(dict.fromkeys(p for own in named.values() for p in own))

    def gradients() -> dict[int, Tensor]:
        with untouched(model), torch.enable_grad():
            grads = torch.autograd.grad(loss(), params, allow_unused=True, materialize_grads=True)
        return {id(p): g.detach().double().flatten() for p, g in zip(params, grads, strict=True)}

    got = gradients()
    with backpropagation(model):
        wanted = gradients()
    out = {}
    for path, own in named.items():
        if own:
            a, b = (torch.cat([grads[id(p)] for p in own]) for grads in (got, wanted))
            size = float(a.norm() * b.norm())
            out[path] = math.degrees(math.acos(max(-1.0, min(1.0, float(a @ b) / size)))) if size else math.nan
    return out
