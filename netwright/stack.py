"""The same step for K copies at once: copies that differ in seed or rate, nothing else.

The copies' parameters lie in one flat tensor (K, P), so that one optimizer call updates them all; the losses of all copies
are one vmap over functional_call, and one ordinary backward through their sum gives every copy its own gradient.
A copy's own rate scales the update that the optimizer computed at rate 1, which is exact for the optimizers in OPTIMIZERS.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from netwright.kinds.rule import Rule
from netwright.kinds.task import Data
from netwright.part import Misfit
from netwright.streams import generator
from netwright.train import SCHEDULES, Outcome, Setting, autocast, cast, make_optimizer, order, spared

EVAL_CHUNK = 2048  # rows times copies a stacked prediction takes at once


def skeleton(module: nn.Module) -> list[Any]:
    """What two copies must have in common: the tree of types, plain settings, and the shapes of parameters and buffers.

    torch.func would silently run the first copy's modules for all copies, so this is compared before stacking.
    """
    rows: list[Any] = []
    for path, sub in module.named_modules():
        plain = {
            k: v for k, v in vars(sub).items()
            if not k.startswith("_") and isinstance(v, (bool, int, float, str, tuple, type(None))) and k != "training"
        }  # fmt: skip
        own = [(n, tuple(t.shape), t.dtype) for n, t in (*sub.named_parameters(recurse=False), *sub.named_buffers(recurse=False))]
        rows.append((path, type(sub), sub.extra_repr() if not own else "", sorted(plain.items(), key=lambda kv: kv[0]), own))
    return rows


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

    def forward(self) -> None:
        self.rule.after_step()


class _Flat:
    """Some parameters of all copies as one leaf (K, P), seen through views."""

    def __init__(self, names: Sequence[str], copies: Sequence[Mapping[str, Tensor]], decay: float) -> None:
        self.names = list(names)
        first = copies[0]
        self.shapes = [first[n].shape for n in names]
        self.sizes = [first[n].numel() for n in names]
        rows = [torch.cat([c[n].detach().reshape(-1) for n in names]) for c in copies]
        self.leaf = torch.stack(rows).requires_grad_()
        self.decay = decay

    def views(self) -> dict[str, Tensor]:
        k = len(self.leaf)
        pieces = self.leaf.split(self.sizes, 1)
        return {n: piece.view(k, *s) for n, piece, s in zip(self.names, pieces, self.shapes, strict=True)}


class Stack:
    """K copies of one rule, trained together. Raises Misfit where the copies can't be stacked, saying why."""

    def __init__(self, rules: Sequence[Rule], settings: Sequence[Setting], compiled: bool = False) -> None:
        first = skeleton(rules[0])
        for k, rule in enumerate(rules[1:], 1):
            if skeleton(rule) != first:
                raise Misfit(f"copy {k} is built differently from copy 0; a stack holds copies that differ in seed or rate only")
        if len(rules[0].phases()) > 1:
            raise Misfit(f"{type(rules[0]).__name__} trains in phases, which a stack doesn't; use the loop engine")
        self.settings, self.k = list(settings), len(rules)
        self.rule = copy.deepcopy(rules[0])
        self.rule.train()
        self._losses, self._after = _Losses(self.rule), _After(self.rule)
        self.calls_after = type(self.rule).after_step is not Rule.after_step
        s = settings[0]
        off = spared(rules[0])
        trained = {id(p) for unit in rules[0].units() for p in unit}
        named = [dict(rule.named_parameters()) for rule in rules]
        groups: dict[float, list[str]] = {}
        for name, p in named[0].items():
            if id(p) in trained:
                groups.setdefault(0.0 if id(p) in off else s.weight_decay, []).append(name)
        self.flats = [_Flat(names, named, decay) for decay, names in groups.items() if names]
        frozen = [n for n, p in named[0].items() if id(p) not in trained]
        self.fixed = {n: torch.stack([c[n].detach() for c in named]) for n in frozen}
        buffers = [dict(rule.named_buffers()) for rule in rules]
        self.buffers = {n: torch.stack([b[n] for b in buffers]) for n in buffers[0]}
        self.optimizer = make_optimizer([{"params": [f.leaf], "weight_decay": f.decay} for f in self.flats], s, 1.0)
        device = self.flats[0].leaf.device
        dtype = self.flats[0].leaf.dtype
        self.rates = torch.tensor([t.lr for t in self.settings], dtype=dtype, device=device)[:, None]
        names_of = {id(p): n for n, p in named[0].items()}
        self.units = [[names_of[id(p)] for p in unit] for unit in rules[0].units()]
        self.total = torch.compile(self._total) if compiled else self._total
        self.bad = torch.zeros(self.k, dtype=torch.long, device=device)  # the first bad step, 0 while sound
        self.step_count = 0

    def state(self) -> dict[str, Tensor]:
        """Every parameter and buffer, stacked along dim 0 (views: copy what you keep)."""
        out = dict(self.fixed)
        for flat in self.flats:
            out |= {n: v.detach() for n, v in flat.views().items()}
        return out | self.buffers

    def copy_state(self, k: int) -> dict[str, Tensor]:
        """The state dict of one copy."""
        keep = set(self.rule.state_dict())
        return {n: v[k].clone() for n, v in self.state().items() if n in keep}

    def _call(self, module: nn.Module, state: Mapping[str, Tensor], *args: Tensor) -> Any:
        return functional_call(module, {f"rule.{n}": v for n, v in state.items()}, args)

    def _total(self, leaves: list[Tensor], x: Tensor, y: Tensor, *draws: Tensor) -> Tensor:
        """Summed losses of every copy: (K,)."""
        params = dict(self.fixed)
        for flat, leaf in zip(self.flats, leaves, strict=True):
            pieces = leaf.split(flat.sizes, 1)
            params |= {n: p.view(self.k, *s) for n, p, s in zip(flat.names, pieces, flat.shapes, strict=True)}

        def one(params: dict[str, Tensor], buffers: dict[str, Tensor], *batch: Tensor) -> Tensor:
            return self._call(self._losses, params | buffers, *batch)

        return vmap(one, randomness="error")(params, self.buffers, x, y, *draws)

    def losses(self, x: Tensor, y: Tensor, draws: tuple[Tensor, ...] = ()) -> Tensor:
        """Losses (K,) with their graph; x (K, B, ...), y (K, B, ...), draws stacked along dim 0."""
        with autocast(self.settings[0], x.device):
            return self.total([f.leaf for f in self.flats], x, y, *draws)

    def step(self, x: Tensor, y: Tensor, draws: tuple[Tensor, ...] = (), factor: float = 1.0) -> Tensor:
        """One step of every copy; returns the losses (K,), detached. A copy whose loss isn't finite stops moving."""
        self.step_count += 1
        losses = self.losses(x, y, draws)
        self.optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        losses = losses.detach()
        with torch.no_grad():
            self.bad = torch.where((self.bad == 0) & ~torch.isfinite(losses), self.step_count, self.bad)
            if self.settings[0].clip is not None:
                self._clip(self.settings[0].clip)
            before = [f.leaf.detach().clone() for f in self.flats]
            self.optimizer.step()
            rates = self.rates * factor
            for flat, old in zip(self.flats, before, strict=True):
                # p <- p_old + rate * (update at rate 1)
                moved = torch.addcmul(old, flat.leaf - old, rates)
                flat.leaf.copy_(torch.where(self.bad[:, None] == 0, moved, old) if bool(self.bad.any()) else moved)
        if self.calls_after:
            self._after_step()
        return losses

    @torch.no_grad()
    def _clip(self, limit: float) -> None:
        """Each copy's gradient of each unit is scaled to a norm of at most `limit`."""
        grads: dict[str, Tensor] = {}
        for flat in self.flats:
            if flat.leaf.grad is not None:
                grads |= dict(zip(flat.names, flat.leaf.grad.split(flat.sizes, 1), strict=True))
        for unit in self.units:
            mine = [grads[n] for n in unit if n in grads]
            if mine:
                norm = torch.stack([g.square().sum(1) for g in mine]).sum(0).sqrt()
                scale = (limit / (norm + 1e-6)).clamp(max=1.0)[:, None]
                for g in mine:
                    g.mul_(scale)

    @torch.no_grad()
    def _after_step(self) -> None:
        vmap(lambda state: self._call(self._after, state), randomness="error")(self.state())

    @torch.no_grad()
    def predict(self, x: Tensor, shared: bool = False) -> Tensor:
        """Predictions of every copy in evaluation mode: x (K, N, ...), or (N, ...) where `shared`; out (K, N, ...)."""
        self.rule.eval()
        state = self.state()
        rows = max(1, EVAL_CHUNK // self.k) if not shared else EVAL_CHUNK
        n = x.shape[0] if shared else x.shape[1]
        call = vmap(lambda s, b: functional_call(self.rule, s, (b,)), in_dims=(0, None if shared else 0))
        with autocast(self.settings[0], x.device):
            pieces = [call(state, x[i : i + rows] if shared else x[:, i : i + rows]).float() for i in range(0, n, rows)]
        self.rule.train()
        return torch.cat(pieces, 1)


def train_stack(rules: Sequence[Rule], data: Sequence[Data], settings: Sequence[Setting], compiled: bool = False) -> list[Outcome]:
    """Train K copies together: `train` for each (rule, data, setting), in order. The data share one pool."""
    pool_x, pool_y = data[0].x, data[0].y
    if any((d.x.data_ptr(), d.x.shape, len(d.train)) != (pool_x.data_ptr(), pool_x.shape, len(data[0].train)) for d in data):
        raise Misfit("the copies of a stack share one pool of examples and one number of training rows; use the loop engine")
    pairs = [cast(rule, pool_x, s) for rule, s in zip(rules, settings, strict=True)]
    rules, x_pool = [p[0] for p in pairs], pairs[0][1]
    stack = Stack(rules, settings, compiled)
    s, problem = settings[0], rules[0].problem
    outs = [Outcome() for _ in rules]
    train_KN, val_KN = torch.stack([d.train for d in data]), torch.stack([d.val for d in data])
    draw_from = [generator(t.seed, "draw") for t in settings]
    augment_from = [generator(t.seed, "augment") for t in settings]
    orders = [order(len(d.train), s.batch, s.steps, t.seed) for d, t in zip(data, settings, strict=True)]
    draws_any = type(rules[0]).draw is not Rule.draw
    factor = SCHEDULES[s.schedule]
    sums, count, evals = torch.zeros(stack.k), 0, set(s.evals)
    for step, positions in enumerate(zip(*orders, strict=True)):
        rows_KB = train_KN.gather(1, torch.stack(positions).to(train_KN.device))
        x, y = x_pool[rows_KB], pool_y[rows_KB]
        if s.augment is not None:
            x = torch.stack([s.augment(xk, g) for xk, g in zip(x, augment_from, strict=True)])
        draws: tuple[Tensor, ...] = ()
        if draws_any:
            each = [r.draw(xk, yk, g) for r, xk, yk, g in zip(rules, x, y, draw_from, strict=True)]
            draws = tuple(torch.stack(d) for d in zip(*each, strict=True))
        losses = stack.step(x, y, draws, factor(step, s.steps))
        sums, count = sums + losses.cpu(), count + 1
        if step + 1 not in evals:
            continue
        bad, means = stack.bad.tolist(), (sums / count).tolist()
        out_KN = stack.predict(x_pool[val_KN])
        for k, out in enumerate(outs):
            if bad[k]:
                continue
            score = float(problem.metric(out_KN[k], pool_y[val_KN[k]]))
            if out.note(step + 1, means[k], score, problem):
                out.best_state = stack.copy_state(k)
        sums, count = torch.zeros(stack.k), 0
        if all(bad):
            break
    for k, step_bad in enumerate(stack.bad.tolist()):
        if step_bad:
            outs[k].bad_step = step_bad
    return outs


