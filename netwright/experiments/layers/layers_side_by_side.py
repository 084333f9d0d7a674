"""Layers side by side, every net as many parameters as the plain one: where a KAN is better than an MLP, and what others do.

Yu, Yu and Wang, "KAN or MLP: A Fairer Comparison" (2024): at equal parameters the KAN is inferior to the MLP but on formulas.
Every layer of the catalogue that fits is compared with the plain net with ReLU, each for itself.
"""

from __future__ import annotations

from typing import Any

from netwright.core import catalogue
from netwright.core.part import Option, Paper
from netwright.experiments._kind import Control, Question, study, verdict

#: host -> (slots whose layers fit, rates each seed tries).
HOSTS = {"mlp": (("layer", "head"), 3), "convnet": (("conv", "channelwise"), 1)}
#: Beside every layer at its defaults: other activations, and other settings of the KAN and its relatives.
BESIDE = ("silu", "gelu", "b-spline", "kan:base=none", "kan:grid=3", "kan:low=-3,high=3", "kat:init=gelu")
#: Compared in another form, the same function: every edge has a basis of its own, which takes an hour unfused.
INSTEAD = {"wavelet-kan": "wavelet-kan:fused=true"}
KANS = (
    "kan",
    "kan:grid=3",
    "kan:low=-3,high=3",
    "fast-kan",
    "chebyshev-kan",
    "legendre-kan",
    "hermite-kan",
    "relu-kan",
    "af-kan",
    INSTEAD["wavelet-kan"],
)


def layers() -> tuple[str, ...]:
    return (*BESIDE, *(INSTEAD.get(part.name, part.name) for part in catalogue.parts("layer")))


def ask(*, host: str, layer: str, data: str, instead: str, steps: int) -> Question | None:
    slots, trials = HOSTS[host]
    if layer in BESIDE:
        if host != "mlp":
            return None
    elif not set(catalogue.parse(layer, "layer")[0].slots()) & set(slots):
        return None
    spec = instead or (layer if layer in BESIDE else f"layer/{layer}")
    terms: dict[str, Any] = {"trials": trials, "steps": steps or None}
    if "fused" in spec:
        terms["engine"] = "loop"  # one net after another: a stack of nets runs the plain writing
    return Question(data, {"plain": "relu", "layer": spec}, {"host": host}, terms)


PART = study(
    ask,
    name="layers-side-by-side",
    paper=Paper(
        title="KAN or MLP: A Fairer Comparison",
        authors="Yu, R., Yu, W. and Wang, X.",
        year=2024,
        arxiv="2407.16674",
        code="https://github.com/yu-rp/KANbeFair",
    ),
    uses=("layer/affine", "activation/relu"),
    grid={"host": ("mlp", "convnet"), "layer": layers},
    options=(
        Option("data", "mnist", "the task", allowed=("mnist", "digits", "cifar10")),
        Option("instead", "", "what is compared in every layer's place"),
        Option("steps", 0, "instead of the task's; 0: the task's", bounds=(-1, 10**9)),
    ),
    sizes={
        "tiny": {"data": "digits", "host": ("mlp",), "layer": ("chebyshev-kan",), "steps": 40, "seeds": 6},
        "small": {"seeds": 6},
        "full": {"seeds": 20},
    },
    predicates=(
        verdict(
            "kans",
            "on images the net of Kolmogorov-Arnold layers is worse than the plain one of as many parameters",
            "layer",
            ("worse",),
            {"host": "mlp", "layer": KANS},
            "abstract",
        ),
    ),
    controls=(Control("the affine map in the layer's place", {"instead": "affine"}, ("kans",)),),
    deviations=(
        "MNIST at 10 000 images and 800 steps, not the paper's eight image sets and 20 epochs",
        "of the ConvNet the rate is the published one, not tuned",
    ),
)
