"""The same step for K copies at once: copies that differ in seed or rate, nothing else.

Every parameter is held once, with the copies along dim 0; losses and gradients of all copies are one vmap(grad) over
functional_call, and one optimizer updates them all.

Shape suffixes: K copies, B batch, N rows of a split.
"""

from __future__ import annotations

import copy
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from netwright.core.errors import Misfit
from netwright.engine.loop import Outcome, Setting, cast, first_bad_module, orders, tested
from netwright.engine.rule import Rule
from netwright.engine.task import Data
from netwright.tensor.groups import spared
from netwright.tensor.modules import roles
from netwright.tensor.streams import generator
from netwright.tensor.tap import evaluating

EVAL_CHUNK = 8192  # rows times copies that a stacked prediction takes at once


def skeleton(module: nn.Module) -> list[Any]:
    """What two copies must have in common: the tree of types, their settings, and the shapes of parameters and buffers.

    torch.func would silently run the first copy's modules for all copies, so this is compared before stacking.
    """
    rows: list[Any] = []
    for path, sub in module.named_modules():
        settings = {k: _plain(v) for k, v in vars(sub).items() if not (k.startswith("__") or k in _INTERNAL)}
        own = [(n, tuple(t.shape), t.dtype) for n, t in (*sub.named_parameters(recurse=False), *sub.named_buffers(recurse=False))]
        rows.append((path, type(sub), settings, own))
    return rows


#: What every module holds and no setting is in.
_INTERNAL = frozenset(vars(nn.Module()))


def _plain(value: Any) -> Any:
    """A setting in a form that can be compared; objects that can't be looked into count by their type."""
    if isinstance(value, (bool, int, float, str, bytes, type(None), torch.dtype, torch.device)):
        return (type(value), repr(value))  # 1, 1.0 and True are three settings, and one NaN is like another
    if isinstance(value, Mapping):
        return sorted((repr(k), _plain(v)) for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(repr, value))
    if isinstance(value, Tensor):
        return (tuple(value.shape), value.dtype, None if value.is_meta else value.detach().cpu().flatten().tolist())
    if callable(value) and hasattr(value, "__qualname__"):
        return (value.__module__, value.__qualname__)
    return type(value)


@final
class _Losses(nn.Module):
    """The sum of a rule's losses as one forward, since functional_call swaps parameters only while forward runs."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, x: Tensor, y: Tensor, *draws: Tensor) -> Tensor:
        return torch.stack(list(self.rule.losses(x, y, *draws))).sum()


@final
class _After(nn.Module):
    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule

    def forward(self) -> tuple[()]:
        self.rule.after_step()
        return ()  # vmap takes no None


@final
class Stack:
    """K copies of one rule, trained together. Raises Misfit where the copies can't be stacked, saying why.

    params: name -> (K, *shape), what is trained; fixed: the other parameters; buffers. The rules themselves stay as they
    were given, until `bind`.
    """

    def __init__(self, rules: Sequence[Rule], settings: Sequence[Setting], compiled: bool = False) -> None:
        first = skeleton(rules[0])
        for k, rule in enumerate(rules[1:], 1):
            if skeleton(rule) != first:
                raise Misfit(f"copy {k} is built differently from copy 0; a stack holds copies that differ in seed or rate only")
        if len(rules[0].phases()) > 1:
            raise Misfit(f"{type(rules[0]).__name__} trains in phases, which a stack doesn't; use the loop engine")
        if settings[0].precision == "amp":
            raise Misfit("torch.vmap has no batch norm in mixed precision; use the loop engine, or precision bf16")
        self.k, self.setting = len(rules), settings[0]
        self.rule = copy.deepcopy(rules[0])
        self.rule.train()
        self._losses, self._after = _Losses(self.rule), _After(self.rule)
        self.calls_after = type(self.rule).after_step is not Rule.after_step

        named = [dict(rule.named_parameters()) for rule in rules]
        names_of = {id(p): n for n, p in named[0].items()}
        self.units = [[names_of[id(p)] for p in unit] for unit in rules[0].units()]
        trained = {name for unit in self.units for name in unit}
        stacked = {n: torch.stack([own[n].detach() for own in named]).contiguous() for n in named[0]}
        self.params = {n: v for n, v in stacked.items() if n in trained}
        self.fixed = {n: v for n, v in stacked.items() if n not in trained}
        buffers = [dict(rule.named_buffers()) for rule in rules]
        self.buffers = {n: torch.stack([own[n] for own in buffers]) for n in buffers[0]}

        off = {names_of[i] for i in spared(rules[0]) if i in names_of}
        decays = {n: 0.0 if n in off else self.setting.weight_decay for n in self.params}
        by, rates = self.setting.steps_by, [t.lr for t in settings]
        of_tensors = roles(rules[0]) if by.part.tags.scope == "tensor" else {}
        self.copies = by.part.over_copies(self.params, decays, rates, of_tensors, **by.options)
        self.compiled = compiled
        self._compute = torch.compile(_own_code(self._gradients), dynamic=False) if compiled else self._gradients
        self.bad = torch.zeros(self.k, dtype=torch.long)  # the first bad step of each copy, 0 while sound
        self.fresh: list[int] = []  # copies that went bad in the last step
        self.step_count = 0

    @staticmethod
    def _column(values: Any, like: Tensor) -> Tensor:
        """One value a copy, shaped to broadcast against a stacked parameter."""
        return torch.as_tensor(values, dtype=like.dtype, device=like.device).view(-1, *[1] * (like.dim() - 1))

    def state(self) -> dict[str, Tensor]:
        """Every parameter and buffer, the copies along dim 0 (live: copy what you keep)."""
        return {**self.fixed, **self.params, **self.buffers}

    def bind(self, rules: Sequence[Rule]) -> None:
        """Make the parameters and buffers of each rule a view of its copy, so that it always shows the copy's state."""
        state = self.state()
        for k, rule in enumerate(rules):
            for name, p in rule.named_parameters():
                p.data = state[name][k]
            for name, _ in rule.named_buffers():
                path, _, leaf = name.rpartition(".")
                rule.get_submodule(path)._buffers[leaf] = self.buffers[name][k]

    def _call(self, module: nn.Module, state: Mapping[str, Tensor], *args: Tensor) -> Any:
        return functional_call(module, {f"rule.{n}": v for n, v in state.items()}, args)

    def _gradients(
        self, params: dict[str, Tensor], fixed: dict[str, Tensor], buffers: dict[str, Tensor], *batch: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        def one(params: dict[str, Tensor], others: dict[str, Tensor], *batch: Tensor) -> Tensor:
            return self._call(self._losses, {**others, **params}, *batch)

        grads, losses = vmap(grad_and_value(one), randomness="error")(params, {**fixed, **buffers}, *batch)
        return losses, grads

    def gradients(self, x: Tensor, y: Tensor, draws: tuple[Tensor, ...] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses (K,) and the gradient of each copy's own by name; x (K, B, ...), y (K, B, ...), draws along dim 0."""
        try:
            return self._compute(self.params, self.fixed, self.buffers, x, y, *draws)
        except Exception as error:
            if not self.compiled:
                raise
            warnings.warn(f"the stack runs uncompiled ({type(error).__name__}: {str(error)[:200]})", stacklevel=2)
            self.compiled, self._compute = False, self._gradients
            return self._compute(self.params, self.fixed, self.buffers, x, y, *draws)

    @torch.no_grad()
    def step(self, x: Tensor, y: Tensor, draws: tuple[Tensor, ...] = (), factor: float = 1.0) -> Tensor:
        """One step of every copy; returns the losses (K,), detached. A copy whose loss isn't finite stops moving."""
        self.step_count += 1
        with torch.enable_grad():
            losses, grads = self.gradients(x, y, draws)
        losses = losses.detach()
        grads = {n: g.detach().contiguous() for n, g in grads.items()}  # fused kernels read them in the parameter's order
        self._note_bad(torch.isfinite(losses))
        if self.setting.clip is not None:
            self._clip(grads, self.setting.clip)
        self.copies.step(grads, factor, self.bad == 0 if bool(self.bad.any()) else None)
        if self.calls_after:
            vmap(lambda state: self._call(self._after, state), randomness="error")(self.state())
        return losses

    def _note_bad(self, finite_K: Tensor) -> None:
        self.fresh = []
        if not bool(finite_K.all()):
            new = ~finite_K.cpu() & (self.bad == 0)
            self.bad[new] = self.step_count
            self.fresh = new.nonzero()[:, 0].tolist()

    def _clip(self, grads: Mapping[str, Tensor], limit: float) -> None:
        """Each copy's gradient of each unit is scaled to a norm of at most `limit`."""
        for unit in self.units:
            mine = [grads[n] for n in unit]
            if mine:
                norm_K = torch.stack([g.flatten(1).square().sum(1) for g in mine]).sum(0).sqrt()
                scale_K = (limit / (norm_K + 1e-6)).clamp(max=1.0)
                for g in mine:
                    g.mul_(self._column(scale_K, g))

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Predictions of every copy in evaluation mode: x (K, N, ...), out (K, N, ...)."""
        rows = max(1, EVAL_CHUNK // self.k)
        call = vmap(lambda state, part: functional_call(self.rule, state, (part,)))
        with evaluating(self.rule):
            return torch.cat([call(self.state(), part).float() for part in x.split(rows, 1)], 1)


def _own_code(method: Any) -> Callable[..., Any]:
    """A copy of a method with a code object of its own: the compiler limits how often one may be compiled anew."""
    f = method.__func__
    copied = types.FunctionType(f.__code__.replace(), f.__globals__, f.__name__, f.__defaults__, f.__closure__)
    return types.MethodType(copied, method.__self__)


def train_stack(
    rules: Sequence[Rule], data: Sequence[Data], settings: Sequence[Setting], compiled: bool = False
) -> list[Outcome]:
    """Train K copies together: `train` for each (rule, data, setting), in order. The data share one pool."""
    pool_x, pool_y = data[0].x, data[0].y
    if any((d.x.data_ptr(), d.x.shape, len(d.train)) != (pool_x.data_ptr(), pool_x.shape, len(data[0].train)) for d in data):
        raise Misfit("the copies of a stack share one pool of examples and one number of training rows; use the loop engine")
    pairs = [cast(rule, pool_x, s) for rule, s in zip(rules, settings, strict=True)]
    rules, x_pool = [p[0] for p in pairs], pairs[0][1]
    stack = Stack(rules, settings, compiled)
    stack.bind(rules)  # draws, snapshots and the search for a bad module see each copy as it is now
    s, problem = settings[0], rules[0].problem
    outs = [Outcome() for _ in rules]
    train_KN, val_KN = torch.stack([d.train for d in data]), torch.stack([d.val for d in data])
    draw_from = [generator(t.seed, "draw") for t in settings]
    augment_from = [generator(t.seed, "augment") for t in settings]
    draws_any = type(rules[0]).draw is not Rule.draw
    factor = s.factors()
    sums, count, evals = torch.zeros(stack.k), 0, set(s.evals)
    for step, positions_KB in enumerate(orders(train_KN.shape[1], s.batch, s.steps, [t.seed for t in settings])):
        rows_KB = train_KN.gather(1, positions_KB.to(train_KN.device))
        x, y = x_pool[rows_KB], pool_y[rows_KB]
        if s.augment is not None:
            x = torch.stack([s.augment(xk, g) for xk, g in zip(x, augment_from, strict=True)])
        draws: tuple[Tensor, ...] = ()
        if draws_any:
            each = [r.draw(xk, yk, g) for r, xk, yk, g in zip(rules, x, y, draw_from, strict=True)]
            draws = tuple(torch.stack(d) for d in zip(*each, strict=True))
        losses = stack.step(x, y, draws, factor(step))
        for k in stack.fresh:
            outs[k].bad_step = step + 1
            outs[k].bad_module = first_bad_module(rules[k], x[k], y[k], tuple(d[k] for d in draws))
        if stack.fresh and bool(stack.bad.all()):
            break
        sums, count = sums + losses.cpu(), count + 1
        if step + 1 not in evals:
            continue
        means = (sums / count).tolist()
        with stack.copies.reading():
            out_KN = stack.predict(x_pool[val_KN])
            for k, out in enumerate(outs):
                if out.bad_step is not None:
                    continue
                score = float(problem.metric(out_KN[k], pool_y[val_KN[k]]))
                if out.note(step + 1, means[k], score, problem):
                    out.best_state = {n: v.detach().clone() for n, v in rules[k].state_dict().items()}
        sums, count = torch.zeros(stack.k), 0
    return [tested(out, rule, x_pool, d, t) for out, rule, d, t in zip(outs, rules, data, settings, strict=True)]
