"""Golden numbers of the rooms that versions stand for: outputs and gradients of a toy of every shape of every kind.

Where a row's numbers move and a part that it names has another fingerprint, write that row anew; where none has, raise the
KIND_VERSION (or ENGINE_VERSION) of the room that moved them, and write all rows of it anew:

    python tests/golden/kinds.py [ROW ...]
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from netwright.activations import Tags as ActivationTags  # noqa: E402
from netwright.activations import activation  # noqa: E402
from netwright.core import catalogue  # noqa: E402
from netwright.core.fingerprint import ENGINE_VERSION, fingerprint, house  # noqa: E402
from netwright.core.part import Learn, Option, Paper, State  # noqa: E402
from netwright.engine.graph import Graph  # noqa: E402
from netwright.engine.rule import Rule  # noqa: E402
from netwright.engine.task import Problem  # noqa: E402
from netwright.layers import Layer, Norm, layer, product, uniform_  # noqa: E402
from netwright.layers import Tags as LayerTags  # noqa: E402
from netwright.losses import loss  # noqa: E402
from netwright.optimizers import Tags as OptimizerTags  # noqa: E402
from netwright.optimizers import optimizer, rest_options, schedule  # noqa: E402
from netwright.optimizers._contract import small, train  # noqa: E402
from netwright.rules import Toy, gradients, rule  # noqa: E402
from netwright.tensor.modules import drawn, roles  # noqa: E402
from netwright.tensor.stepping import reading  # noqa: E402
from netwright.tensor.streams import generator, initialise  # noqa: E402
from netwright.tensor.terms import Term, by_example  # noqa: E402

FILE = Path(__file__).with_name("kinds.json")
PAPER = Paper(title="A toy", authors="Nobody", year=2000)


def values(*given: Any) -> list[float]:
    """Sum, sum of squares and last value of each tensor or number, to seven digits."""
    rows = [(t.double().sum(), t.double().square().sum(), t.double().flatten()[-1]) for t in map(torch.as_tensor, given)]
    return [float(f"{float(v):.7g}") for row in rows for v in row]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "probe"), dtype=torch.float64)


def through(module: nn.Module, x: Tensor) -> list[float]:
    """Output, gradient of the input and of every parameter, twice in training and once in evaluation."""
    out = []
    for mode in (True, True, False):
        module.train(mode).zero_grad()
        given = x.clone().requires_grad_(x.is_floating_point())
        y = module(given)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        out += values(y, *([] if given.grad is None else [given.grad]), *grads)
    return out


# Activations, a toy a shape class -------------------------------------------------------------------------------------


def bent(x: Tensor, a: Tensor, *, power: float = 1.5) -> Tensor:
    return torch.where(x > 0, x, a * x * x.abs().pow(power - 1))


def rowwise(x: Tensor, *, dim: int = -1) -> Tensor:
    return x - x.mean(dim, keepdim=True)


def gated(x: Tensor, *, dim: int = -1) -> Tensor:
    a, b = x.chunk(2, dim)
    return a * torch.sigmoid(b)


def doubled(x: Tensor, *, dim: int = -1) -> Tensor:
    return torch.cat((x, -x), dim)


def centred(x: Tensor, mean: Tensor, noise: Tensor, *, dim: int = -1) -> tuple[Tensor, Tensor]:
    new = 0.5 * mean + 0.5 * x.mean(0)
    return x - new + 0.1 * noise, new


def activations() -> dict[str, Callable[[], list[float]]]:
    def of(fn: Any, shape: str, **more: Any) -> Any:
        tags = ActivationTags(shape=shape)
        return activation(fn, cls=fn.__name__.title(), reference=fn, paper=PAPER, summary="a toy", tags=tags, **more)

    elementwise = of(bent, "elementwise", learn=(Learn("a", 0.25, bounds=(0.0, 1.0)),), options=(Option("power", 1.5),))
    stateful = of(
        centred,
        "stateful",
        state=(State("mean", 0.5),),
        draw=lambda x, g, **options: (normal(*x.shape, seed=3),),
        evaluate=lambda x, mean, **options: x - mean,
    )
    x = normal(5, 4, 3)

    def module(part: Any, **options: Any) -> nn.Module:
        return part.build(**options).double()

    return {
        "activation, elementwise": lambda: (
            through(module(elementwise), x) + through(module(elementwise, channels=4, per="channel", power=2.0), x)
        ),
        "activation, rowwise": lambda: through(module(of(rowwise, "rowwise"), channel_dim=1), x),
        "activation, gated": lambda: through(module(of(gated, "gated"), channel_dim=1), x),
        "activation, channels": lambda: through(module(of(doubled, "channels", ratio=2.0), channel_dim=1), x),
        "activation, stateful": lambda: through(module(stateful, channels=4, channel_dim=1), x[:, :, 0]),
    }


# Layers ---------------------------------------------------------------------------------------------------------------


class Linear(Layer):
    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(d_out, d_in)), nn.Parameter(torch.empty(d_out))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        uniform_(self.weight, 0.5, generator)
        uniform_(self.bias, 0.5, generator)

    def compute(self, x: Tensor) -> Tensor:
        return product(x, self.weight, self.bias)


class Sequence(Linear):
    def compute(self, x: Tensor) -> Tensor:
        return product(x.cumsum(-2), self.weight, self.bias)


class Conv(Layer):
    def __init__(
        self, c_in: int, c_out: int, kernel_size: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1, *, dims: int = 2
    ) -> None:
        super().__init__()
        self.geometry = (stride, padding, dilation)
        self.weight = nn.Parameter(torch.empty(c_out, c_in, *(kernel_size,) * dims))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        uniform_(self.weight, 0.5, generator)

    def compute(self, x: Tensor) -> Tensor:
        return torch.conv2d(x, self.weight, None, *self.geometry)


class Channelwise(Layer):
    def __init__(self, channels: int, *, dims: int = 2) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        uniform_(self.weight, 1.0, generator)

    def compute(self, x: Tensor) -> Tensor:
        return x * self.weight[:, None, None]


class Scaled(Norm):
    def __init__(self, channels: int, channel_dim: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        uniform_(self.weight, 1.0, generator)

    def compute(self, x: Tensor, dim: int) -> Tensor:
        return x / (1 + x.square().mean(self.positions(x, dim), keepdim=True)) * self.along(self.weight, x, dim)


def layers() -> dict[str, Callable[[], list[float]]]:
    def row(cls: Any, shape: str, x: Tensor, *sizes: int, **options: Any) -> Callable[[], list[float]]:
        tags = LayerTags(shape=shape, delicate=shape == "norm")
        layer(cls, paper=PAPER, reference=lambda layer, x: x, summary="a toy", name=f"toy-{cls.__name__.lower()}", tags=tags)
        return lambda: through(drawn(cls, *sizes, seed=1, **options), x)

    return {
        "layer, linear": row(Linear, "linear", normal(2, 3, 5), 5, 4),
        "layer, sequence": row(Sequence, "sequence", normal(2, 3, 5), 5, 4),
        "layer, conv": row(Conv, "conv", normal(2, 3, 6, 5), 3, 4, 3, 2, 1),
        "layer, channelwise": row(Channelwise, "channelwise", normal(2, 3, 4, 5), 3),
        "layer, norm": row(Scaled, "norm", normal(2, 3, 4), 3),
    }


# Nets, rules, and what builds them: rows of real parts, named with their fingerprints ---------------------------------


def problem(shape: tuple[int, ...], output: tuple[int, ...], gives: str) -> Problem:
    return Problem(
        objective=nn.functional.cross_entropy,
        metric=lambda out, y: 0.0,
        metric_name="accuracy",
        higher_is_better=True,
        worst=0.0,
        delta=0.01,
        input=shape,
        output=output,
        classes=output[-1],
        gives=frozenset(gives.split()),
    )


def net(name: str, given: Problem, widths: tuple[int, ...], x: Tensor, norm: Any, **options: Any) -> Callable[[], list[float]]:
    part: Any = catalogue.get(name)

    def numbers() -> list[float]:
        fill = {"activation": lambda channels, dim: nn.Tanh(), "norm": norm}
        with torch.device("meta"):
            built = part.build(given, widths, fill, **options)
        built.to_empty(device="cpu").double()
        initialise(built, 2)
        return through(built, x)

    return numbers


def none(channels: int, dim: int) -> nn.Module:
    return nn.Identity()


def nets() -> dict[str, tuple[tuple[str, ...], Callable[[], list[float]]]]:
    ring = torch.arange(7)
    graph = Graph(normal(7, 4), torch.stack([ring, (ring + 1) % 7]))
    tokens = torch.arange(10).view(2, 5) % 6
    rows = {
        "net/mlp": net("net/mlp", problem((3, 2), (4,), "labels"), (5, 4), normal(6, 3, 2), none),
        "net/convnet": net(
            "net/convnet",
            problem((2, 6, 6), (3,), "labels"),
            (4, 6),
            normal(3, 2, 6, 6),
            lambda c, d: nn.BatchNorm2d(c),
            stride=2,
        ),
        "net/tiny-transformer": net(
            "net/tiny-transformer", problem((5,), (5, 6), "tokens"), (7, 6), tokens, lambda c, d: nn.LayerNorm(c), d=8, heads=2
        ),
        "net/gcn": net("net/gcn", problem((), (3,), "graph"), (5, 4), torch.tensor([0, 3, 6]), none, graph=graph),
    }
    return {name: ((name,), numbers) for name, numbers in rows.items()}


class Halves(Rule):
    """Each block by the mean square of its output, the readout by cross-entropy."""

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def units(self) -> Any:
        return [list(block.parameters()) for block in self.net.blocks] + [list(self.net.readout.parameters())]

    def losses(self, x: Tensor, y: Tensor, *draws: Tensor) -> Any:
        for block in self.net.blocks:
            x = block(x.detach())
            yield x.square().mean()
        yield nn.functional.cross_entropy(self.net.readout(x.detach()), y)


def rules() -> dict[str, tuple[tuple[str, ...], Callable[[], list[float]]]]:
    own = rule(Halves, paper=PAPER, summary="a toy")

    def step(part: Any, toy: Toy) -> list[float]:
        bound = toy.bind(part.build)
        x, y = toy.batch()
        draws = bound.draw(x, y, torch.Generator().manual_seed(0))
        grads = gradients(bound, x, y, *draws)
        return values(*(grads[name] for name in sorted(grads)), bound(x))

    named = ("rule/backprop", "rule/mono-forward", "rule/dfa", "rule/forward-gnn")  # one a family, and one on a graph
    rows: dict[str, tuple[tuple[str, ...], Callable[[], list[float]]]] = {"rule, toy": ((), lambda: step(own, Toy()))}
    for name in named:
        part: Any = catalogue.get(name)
        uses = (name, "net/gcn") if part.toy is not None and part.toy.nodes else (name,)
        rows[name] = (uses, lambda part=part: step(part, part.toy or Toy()))
    return rows


def tasks() -> dict[str, tuple[tuple[str, ...], Callable[[], list[float]]]]:
    def first(name: str) -> list[float]:
        part: Any = catalogue.get(name)
        task = part.build()
        x, y = task.data(1).split("val")
        return [*values(x, y.double()), math.log(task.lr[2]), float(len(task.evals)), float(sum(task.evals))]

    return {name: ((name, "net/mlp"), lambda name=name: first(name)) for name in ("task/moons", "task/sine")}


def experiments() -> dict[str, tuple[tuple[str, ...], Callable[[], list[float]]]]:
    def built(name: str) -> list[float]:
        part: Any = catalogue.get(name)
        setup = part.build("tiny")
        given = part.cell(seed=1, **setup.points[0], **setup.options)
        return [float(setup.seeds), *(float(given[column]) for column in part.gives)]

    def read(name: str) -> list[float]:
        part: Any = catalogue.get(name)
        return [number for net, view, _ in part.cases() for value in part.build()(net, view).values() for number in values(value)]

    return {
        "experiment/ntk": (("experiment/ntk", "measure/empirical-ntk"), lambda: built("experiment/ntk")),
        "measure/empirical-ntk": (("measure/empirical-ntk",), lambda: read("measure/empirical-ntk")),
    }


def falling(step: int, steps: int, *, share: float) -> float:
    return max(0.0, 1 - step / (share * steps))


def heavy(g: Tensor, state: dict[str, Tensor], p: Tensor, t: int, *, lr: float, weight_decay: float, mass: float) -> Any:
    v = mass * state["v"] + g + weight_decay * p
    return p - lr * v / (1 - mass**t) / (v.norm() if p.dim() else 1.0), {"v": v}


def optimizers() -> dict[str, tuple[tuple[str, ...], Callable[[], list[float]]]]:
    """A toy of each scope in a net of every sort of tensor, as an optimizer for torch and mapped over copies; a schedule."""

    def stepped(scope: str, matrices: bool, read: bool) -> list[float]:
        own = (Option("mass", 0.5), *(rest_options("optimizer/adamw", 0.1) if matrices else ()))
        part = optimizer(
            heavy,
            start=lambda p: {"v": 0.1 * p},
            reference=lambda *given, **options: iter(()),
            read=(lambda p, state, mass: p + mass * state["v"]) if read else None,
            paper=PAPER,
            summary="a toy",
            options=own,
            tags=OptimizerTags(scope=scope, matrices=matrices, published=0.05),
        )
        net, loss = small()
        built = part.build(net, 0.05, 0.1)
        first = train(net, built, loss, 4)
        with reading(built):
            out = [first, *values(loss(net), *net.parameters())]
        if scope != "net":
            each = {name: torch.stack([p.detach(), 2 * p.detach()]) for name, p in net.named_parameters()}
            copies = part.over_copies(each, dict.fromkeys(each, 0.1), (0.1, 0.02), roles(net))
            for factor in (1.0, 0.5):
                copies.step({name: 0.1 * p for name, p in each.items()}, factor, torch.tensor([True, factor == 1.0]))
            out += values(*each.values())
        return out

    cases = (("value", False, True), ("tensor", True, False), ("net", False, True))
    made = {f"optimizer, {scope}": ((), lambda given=(scope, *more): stepped(*given)) for scope, *more in cases}
    fall = schedule(falling, reference=falling, paper=PAPER, summary="a toy", options=(Option("share", 0.5),))
    return made | {"optimizer, schedule": ((), lambda: [fall.build(8, share=0.9)(step) for step in range(9)])}


def losses() -> dict[str, tuple[tuple[str, ...], Callable[[], list[float]]]]:
    """A toy of two terms, positions and ignored ones among them, as a module and cut into pieces; the losses of tasks."""

    def costs(out: Tensor, y: Tensor, *, share: float) -> Any:
        counts = y >= 0
        each = (out - torch.where(counts, y, 0)[..., None]).square().mean(-1)
        first = by_example(each, counts)
        return (first, Term(share * out.square().flatten(1).mean(1), torch.ones(len(out), dtype=out.dtype)))

    part = loss(costs, reference=lambda *given: [], paper=PAPER, summary="a toy", options=(Option("share", 0.5),))

    def numbers() -> list[float]:
        built: Any = part.build(share=0.3)
        out, y = normal(5, 3, 2), torch.arange(15).reshape(5, 3) % 4 - 1
        totals = built.totals(torch.zeros_like(out), y)
        pieces = [built(out[a:b], y[a:b], of=totals) for a, b in ((0, 2), (2, 2), (2, 5))]
        slope = torch.func.grad(lambda o: built(o, y))(out)
        return values(built(out, y), slope, *totals, *pieces)

    def of_tasks(text: str, y: Tensor) -> list[float]:
        given = replace(problem((3,), (3,), "labels"), objective=text)
        out = normal(6, 3)
        return values(given.loss(out, y), torch.func.grad(given.loss)(out, y), given.loss(out, y, of=given.totals(out, y)))

    return {
        "loss, toy": ((), numbers),
        "loss/cross-entropy": (("loss/cross-entropy",), lambda: of_tasks("cross-entropy", torch.arange(6) % 3)),
        "loss/mse": (("loss/mse",), lambda: of_tasks("mse", normal(6, 3, seed=1))),
    }


def rows() -> dict[str, tuple[str, tuple[str, ...], Callable[[], list[float]]]]:
    """Row -> (kind, parts it is of, numbers)."""
    plain = {name: (name.split(",")[0], (), numbers) for name, numbers in (activations() | layers()).items()}
    real = {
        name: (name.split("/")[0].split(",")[0], uses, numbers)
        for name, (uses, numbers) in (nets() | rules() | tasks() | experiments() | optimizers() | losses()).items()
    }
    return plain | real


def version(kind: str) -> int:
    """The KIND_VERSION of a kind."""
    return int(house().constant(f"netwright.{catalogue.kinds()[kind].folder}._kind", "KIND_VERSION"))


def row(kind: str, uses: tuple[str, ...], numbers: Callable[[], list[float]]) -> dict[str, Any]:
    return {
        "engine_version": ENGINE_VERSION,
        "kind_version": version(kind),
        "fingerprints": {name: fingerprint(catalogue.get(name)) for name in uses},
        "numbers": numbers(),
    }


if __name__ == "__main__":
    known = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    made = {name: row(*given) for name, given in rows().items() if not sys.argv[1:] or name in sys.argv[1:]}
    FILE.write_text(json.dumps(dict(sorted((known | made).items())), indent=1) + "\n", encoding="utf-8")
    print(f"wrote {len(made)} rows of {FILE.name}")
