"""The form of an optimizer that updates a stack of copies at once: every tensor has the copies along dim 0.

torch's own optimizers take the stacked tensors as they are, at rate 1, and a copy's own rate scales what they did, which
is exact for those that act on each value alone. Steps of ours are vmapped, each copy with its rate.

Shape suffixes: K copies.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor
from torch.func import vmap

from netwright.core.errors import Misfit
from netwright.tensor.modules import LOW, Role
from netwright.tensor.stepping import Steps, check_rate, followed, over

Named = Mapping[str, Tensor]


class Copies(ABC):
    """Copies of parameters by name, (K, ...) each, which `step` changes in place. Abstract."""

    def __init__(self, params: Named, rates: Sequence[float]) -> None:
        self.params = params
        self.rates = {name: column(rates, p) for name, p in params.items()}

    @abstractmethod
    def step(self, gradients: Named, factor: float, sound_K: Tensor | None) -> None:
        """One step. factor: on every rate. sound_K: which copies move; None: all."""

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Inside, the parameters have the values at which the nets are evaluated."""
        yield


def column(values: Any, like: Tensor) -> Tensor:
    """One value a copy, shaped to broadcast against a stacked parameter."""
    return torch.as_tensor(values, dtype=like.dtype, device=like.device).view(-1, *[1] * (like.dim() - 1))


def over_copies(
    part: Any,
    params: Named,
    decays: Mapping[str, float],
    rates: Sequence[float],
    roles: Mapping[str, Role],
    options: Mapping[str, Any],
) -> Copies:
    """The copies of `params` under this part. decays: of each tensor. rates: of each copy. roles: of a single copy's tensors.

    Raises Misfit for a part that doesn't stack, BadInput for what it can't take.
    """
    if part.why_not_stackable:
        raise Misfit(f"{part.why_not_stackable}; use the loop engine")
    for rate in rates:
        check_rate(part, rate, max(decays.values(), default=0.0))
    if part.twin is not None:
        return _Scaled(part, params, decays, rates, options)
    return _Mapped(part, params, decays, rates, roles, options)


@final
class _Scaled(Copies):
    def __init__(
        self, part: Any, params: Named, decays: Mapping[str, float], rates: Sequence[float], options: Mapping[str, Any]
    ) -> None:
        super().__init__(params, rates)
        split: dict[bool, list[Tensor]] = {True: [], False: []}
        for name, p in params.items():
            split[decays[name] > 0].append(p)
        decay = max(decays.values(), default=0.0)
        groups = [{"params": ps, "weight_decay": decay if on else 0.0} for on, ps in split.items() if ps]
        self.optimizer = over(part, groups, 1.0, 0.0, options)

    def step(self, gradients: Named, factor: float, sound_K: Tensor | None) -> None:
        before = {}
        for name, value in self.params.items():
            before[name] = value.clone()
            value.grad = gradients[name]
        self.optimizer.step()
        for name, value in self.params.items():
            old = before[name]
            rates = self.rates[name] if factor == 1.0 else self.rates[name] * factor
            torch.lerp(old, value, rates, out=value)  # p <- p_old + rate * (update at rate 1)
            if sound_K is not None:
                value.copy_(torch.where(column(sound_K, old) != 0, value, old))


@final
class _Mapped(Copies):
    def __init__(
        self,
        part: Any,
        params: Named,
        decays: Mapping[str, float],
        rates: Sequence[float],
        roles: Mapping[str, Role],
        options: Mapping[str, Any],
    ) -> None:
        super().__init__(params, rates)
        one = [{"params": [(name, p[0])], "weight_decay": decays[name]} for name, p in params.items()]
        single = Steps(part, one, part.tags.published, 0.0, options, roles)
        self.part, self.options, self.decays, self.t = part, options, decays, 0
        self.takers = {
            name: single.taker(group["params"][0], group) for name, group in zip(params, single.param_groups, strict=True)
        }
        self.roles = {name: single.role(group["params"][0]) for name, group in zip(params, single.param_groups, strict=True)}
        self.values: dict[str, Tensor] = {}  # of what is kept in half precision: see Steps
        self.state = {
            name: vmap(lambda p, name=name: self.takers[name][0].start(self._seen(name, p)))(self._value(name))
            for name, p in params.items()
        }

    def _value(self, name: str) -> Tensor:
        p = self.params[name]
        if p.dtype not in LOW:
            return p
        self.values[name] = followed(self.values.get(name), p)
        return self.values[name]

    def _seen(self, name: str, p: Tensor) -> Tensor:
        role = self.roles[name]
        return p.reshape(-1) if role is None else role.as_matrix(p)

    def _back(self, name: str, value: Tensor, like: Tensor) -> Tensor:
        role = self.roles[name]
        return value.reshape(like.shape) if role is None else role.from_matrix(value)

    def step(self, gradients: Named, factor: float, sound_K: Tensor | None) -> None:
        self.t += 1
        for name, kept in self.params.items():
            part, options, share = self.takers[name]
            p = self._value(name)

            def one(
                g: Tensor, state: Any, p: Tensor, lr: Tensor, name: str = name, part: Any = part, options: Any = options
            ) -> Any:
                new, state = part.steps(
                    self._seen(name, g), state, self._seen(name, p), self.t, lr=lr, weight_decay=self.decays[name], **options
                )
                return self._back(name, new, p), state

            rates_K = self.rates[name].reshape(-1).to(p.dtype) * (factor * share)
            new, self.state[name] = vmap(one)(gradients[name].to(p.dtype), self.state[name], p, rates_K)
            if sound_K is not None:
                new = torch.where(column(sound_K, p) != 0, new, p)
            if kept.dtype in LOW:
                self.values[name] = new
            kept.copy_(new)

    @contextmanager
    def reading(self) -> Iterator[None]:
        if self.part.read is None:
            yield
            return
        read, before = self.part.read, {name: p.clone() for name, p in self.params.items()}
        for name, p in self.params.items() if self.t else ():
            options = self.takers[name][1]
            p.copy_(
                vmap(lambda p, s, n=name, o=options: self._back(n, read(self._seen(n, p), s, **o), p))(
                    self._value(name), self.state[name]
                )
            )
        try:
            yield
        finally:
            for name, p in self.params.items():
                p.copy_(before[name])
