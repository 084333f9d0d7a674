"""The optimizer for torch that comes of a step on one tensor: torch's own with its kernels where it has it, else `Steps`.

`part` is the declaration of an optimizer throughout (netwright.optimizers). Whichever is made, what it loads is matched by the
names of parameters where these are known, whatever the order of groups, and `with reading(optimizer):` puts the values at
which a net is evaluated and saved into it, for the time inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, final

import torch
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.errors import BadInput, Misfit
from netwright.core.kind import OPTIMIZER
from netwright.tensor.groups import Groups, parameter_groups
from netwright.tensor.modules import LOW, Role, guess

#: What one step knows: each value alone, each tensor, or all that is optimised together.
SCOPES = VALUE, TENSOR, NET = "value", "tensor", "net"
#: Options of a part that takes matrices alone: who takes the rest, and at which share of its rate.
REST = ("rest", "rest_rate")
#: In the state of a value kept in half precision: the value itself, which small steps can reach.
MASTER = "master"
Options = Mapping[str, Any]
State = dict[str, Tensor]


def over(part: Any, parameters: Any, lr: Any, weight_decay: float, options: Options) -> torch.optim.Optimizer:
    """The part over these parameters. options: all its own. Raises BadInput for what it can't take."""
    lr = part.tags.published if lr is None else lr
    check_rate(part, lr, weight_decay)
    if parameters is None:
        raise BadInput(f"{part.id} needs what it is to change: make({part.name!r}, parameters=model)")
    if isinstance(parameters, nn.Module):
        parameters = parameter_groups(parameters, weight_decay)
    known = parameters.roles if isinstance(parameters, Groups) and part.tags.scope == TENSOR else {}
    groups = _as_groups(parameters)
    for group in groups:
        check_rate(part, group.get("lr", lr), group.get("weight_decay", weight_decay))
    if part.twin is None:
        return Steps(part, groups, lr, weight_decay, options, known)
    tensors = [p[1] if isinstance(p, tuple) else p for group in groups for p in group["params"]]
    fused = part.twin.fused and all(p.is_floating_point() and p.dtype != torch.float16 for p in tensors)
    speed: dict[str, Any] = {"fused": True} if fused else {"foreach": False}
    built = part.twin.cls(groups, lr=lr, weight_decay=weight_decay, **part.twin.keywords(options), **speed)
    for group in groups:
        if strange := sorted(set(group) - set(built.defaults) - {"params", "param_names", "initial_lr"}):
            raise BadInput(f"{part.id}: a group has {strange[0]!r}; a group may have lr and weight_decay of its own")
    loaded: dict[str, Any] = {}

    def before(optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
        loaded["state"] = matched(optimizer, state_dict) or state_dict
        return loaded["state"]

    built.register_load_state_dict_pre_hook(before)
    built.register_load_state_dict_post_hook(lambda optimizer: as_saved(optimizer, loaded.pop("state")))
    return built


def check_rate(part: Any, lr: Any, weight_decay: Any) -> None:
    """Raises BadInput for a rate or a decay that the part doesn't take."""
    number = float(lr) if isinstance(lr, (int, float, Tensor)) and not isinstance(lr, bool) else math.nan
    if not 0 <= number < math.inf:
        raise BadInput(f"{part.id}: lr={lr!r}; expected a number from 0")
    if part.tags.free and number != 1:
        raise BadInput(
            f"{part.id} finds its own rate, and lr={number:g} is a factor on that: leave it at 1 (a schedule may lower it later)"
        )
    if isinstance(weight_decay, bool) or not isinstance(weight_decay, (int, float)) or not 0 <= weight_decay < math.inf:
        raise BadInput(f"{part.id}: weight_decay={weight_decay!r}; expected a number from 0")
    if weight_decay and part.tags.decay == "none":
        raise BadInput(f"{part.id} has no weight decay; given weight_decay={weight_decay:g}: leave it at 0")


def _as_groups(parameters: Any) -> list[dict[str, Any]]:
    """What torch takes as parameters, as a list of groups."""
    if isinstance(parameters, Tensor):
        raise BadInput("one tensor was given; expected a model, or a list of parameters or groups")
    found = list(parameters)
    if not found:
        raise BadInput("no parameter was given; expected a model, or a list of parameters or groups")
    if isinstance(found[0], dict):
        return [{**group, "params": _listed(group["params"])} for group in found]
    return [{"params": found}]


def _listed(params: Any) -> list[Any]:
    return [params] if isinstance(params, Tensor) else list(params)


def own_options(part: Any, resolved: Options) -> dict[str, Any]:
    """What of all its options the step itself takes."""
    return {option.name: resolved[option.name] for option in part.options if option.name not in REST}


@contextmanager
def reading(*optimizers: Any) -> Iterator[None]:
    """Inside, the parameters have the values at which the net is evaluated and saved; afterwards those it trains at.

    Takes any optimizer: of one that knows no difference, the parameters stay as they are.
    """
    apart = [one for one in optimizers if isinstance(one, Steps) and one.part.read is not None]
    before = [(p, p.detach().clone()) for one in apart for p in one.state]
    for one in apart:
        one.put_in_what_is_read()
    try:
        yield
    finally:
        with torch.no_grad():
            for p, value in before:
                p.copy_(value)


@final
class Steps(torch.optim.Optimizer):
    """An optimizer for torch made of the steps of a part. Made by `part.build`, `netwright.make("muon", parameters=model)`."""

    def __init__(
        self,
        part: Any,
        groups: Sequence[dict[str, Any]],
        lr: float,
        weight_decay: float,
        options: Options,
        known: Mapping[str, Role],
    ) -> None:
        self.part: Any = part
        self._known = dict(known)
        self._roles: dict[int, Role | None] = {}
        super().__init__(list(groups), {"lr": lr, "weight_decay": weight_decay, **options})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's. A group may have a rate, a decay and options of its own. Raises BadInput for what the part can't take."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        names = [option.name for option in self.part.options]
        check_rate(self.part, group["lr"], group["weight_decay"])
        group |= self.part.resolve({name: group[name] for name in names})
        own = {"params", "param_names", "lr", "weight_decay", "initial_lr", *names}
        if strange := sorted(str(name) for name in set(group) - own):
            raise BadInput(f"{self.part.id}: a group has {strange[0]!r}; its options: {', '.join(names) or 'none'}")
        for p, name in zip(group["params"], group.get("param_names", [""] * len(group["params"])), strict=True):
            if not p.is_floating_point():
                raise BadInput(f"{self.part.id}: {name or 'a parameter'} is {p.dtype}; it takes real floating-point tensors")
            self._roles[id(p)] = self._role_of(name, p)
        if self.part.tags.scope == NET and len({float(g["lr"]) for g in self.param_groups}) > 1:
            raise BadInput(f"{self.part.id} sums over all tensors, and takes one lr for all; given groups with several")
        if self.part.tags.matrices:
            self._rest(group)  # named wrongly, it is said now

    def role(self, p: Tensor) -> Role | None:
        """As what matrix its steps take a parameter; None where they take it flat."""
        return self._roles[id(p)]

    def _role_of(self, name: str, p: Tensor) -> Role | None:
        if self.part.tags.scope != TENSOR:
            return None
        role = self._known.get(name) or guess(name, p)
        return role if role.matrix and role.fits and role.shape == tuple(p.shape) else None

    def _rest(self, group: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        part, options = _named(str(group[REST[0]]))
        if OPTIMIZER not in part.slots() or part.tags.scope != VALUE or part.tags.free or part.read is not None:
            raise Misfit(
                f'{self.part.id}: rest={group[REST[0]]!r}; expected an optimizer of scope "value" with a rate of its own'
            )
        return part, options

    def taken(self) -> dict[str, int]:
        """How many values are changed by which part: those it leaves to another are counted under that."""
        count: dict[str, int] = {}
        for group in self.param_groups:
            for p in group["params"]:
                part = self.taker(p, group)[0]
                count[part.id] = count.get(part.id, 0) + p.numel()
        return count

    def taker(self, p: Tensor, group: Mapping[str, Any]) -> tuple[Any, dict[str, Any], float]:
        """(who steps this tensor, its options, its factor on the rate)."""
        if self.part.tags.matrices and self.role(p) is None:
            rest, options = self._rest(group)
            return rest, options, float(group[REST[1]])
        return self.part, own_options(self.part, group), 1.0

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step on every parameter that has a gradient. closure: evaluates the loss anew, which is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = [(group, p, p.grad) for group in self.param_groups for p in group["params"] if p.grad is not None]
        for _, p, g in moving:
            if g.is_sparse:
                raise BadInput(f"{self.part.id}: a gradient of shape {tuple(p.shape)} is sparse; use sparse=False")
        if self.part.tags.scope == NET:
            self._step_net(moving)
        else:
            for group, p, g in moving:
                self._step_tensor(p, g, group)
        return loss

    def _step_tensor(self, p: Tensor, g: Tensor, group: Mapping[str, Any]) -> None:
        part, options, factor = self.taker(p, group)
        role, state, value = self.role(p), self.state[p], self._value(p)
        seen = role.as_matrix if role is not None else _flat
        if "step" not in state:
            state["step"] = 0
            state |= part.start(seen(value))
        state["step"] += 1
        inner = {name: t for name, t in state.items() if name not in ("step", MASTER)}
        rates = {"lr": group["lr"] * factor, "weight_decay": group["weight_decay"]}
        new, inner = part.steps(seen(g.to(value.dtype)), inner, seen(value), state["step"], **rates, **options)
        state |= inner
        self._put(p, role.from_matrix(new) if role is not None else new.reshape(p.shape))

    def _step_net(self, moving: Sequence[tuple[Mapping[str, Any], Tensor, Tensor]]) -> None:
        """All tensors as one flat one: what of the state is as large is kept with each, the rest is one for all."""
        if not moving:
            return
        first, tensors = moving[0][0], [p for _, p, _ in moving]
        if len({float(group["lr"]) for group, _, _ in moving}) > 1:
            raise BadInput(f"{self.part.id} sums over all tensors, and takes one lr for all; the groups have several now")
        values = [self._value(p) for p in tensors]
        sizes = [p.numel() for p in tensors]
        dtype = max((v.dtype for v in values), key=lambda d: torch.finfo(d).bits)
        flat = torch.cat([v.reshape(-1).to(dtype) for v in values])
        gradient = torch.cat([g.reshape(-1).to(dtype) for _, _, g in moving])
        fresh = [i for i, p in enumerate(tensors) if "step" not in self.state[p]]
        if fresh:
            started = self.part.start(torch.cat([values[i].reshape(-1).to(dtype) for i in fresh]))
            known = next((self.state[p] for p in self.state if "step" in self.state[p]), {"step": 0})
            for i, pieces in zip(fresh, _cut(started, [sizes[i] for i in fresh]), strict=True):
                own = self.state[tensors[i]]
                own |= pieces | {name: known[name] for name, t in pieces.items() if not t.dim() and name in known}
                own["step"] = known["step"]
        states = [self.state[p] for p in tensors]
        t = states[0]["step"] + 1
        names = [name for name in states[0] if name not in ("step", MASTER)]
        state = {name: torch.cat([s[name] for s in states]) if states[0][name].dim() else states[0][name] for name in names}
        decays = {float(group["weight_decay"]) for group, _, _ in moving}
        decay: Any = decays.pop() if len(decays) == 1 else None
        if decay is None:
            decay = torch.cat([flat.new_full((n,), float(g["weight_decay"])) for (g, _, _), n in zip(moving, sizes, strict=True)])
        options = self.part.own({option.name: first[option.name] for option in self.part.options})
        new, state = self.part.steps(gradient, state, flat, t, lr=first["lr"], weight_decay=decay, **options)
        for p, own, value, pieces in zip(tensors, states, new.split(sizes), _cut(state, sizes), strict=True):
            own |= pieces
            own["step"] = t
            self._put(p, value.reshape(p.shape))

    def _value(self, p: Tensor) -> Tensor:
        """What the step starts from: of a parameter in half precision a float32 value that small steps can reach."""
        if p.dtype not in LOW:
            return p.detach()
        self.state[p][MASTER] = followed(self.state[p].get(MASTER), p.detach())
        return self.state[p][MASTER]

    def _put(self, p: Tensor, value: Tensor) -> None:
        if p.dtype in LOW:
            self.state[p][MASTER] = value
        p.copy_(value)

    @torch.no_grad()
    def put_in_what_is_read(self) -> None:
        """Give the parameters the values at which the net is evaluated: `reading` does, and takes them out again."""
        assert self.part.read is not None
        for group in self.param_groups:
            options = own_options(self.part, group)
            for p in group["params"]:
                if "step" not in self.state.get(p, {}):
                    continue
                role = self.role(p)
                seen = role.as_matrix if role is not None else _flat
                value = self.part.read(seen(self._value(p)), self.state[p], **options)
                p.copy_(role.from_matrix(value) if role is not None else value.reshape(p.shape))

    def reading(self) -> Any:
        """`with optimizer.reading():` evaluate and save in here; see the function of this name."""
        return reading(self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As torch's, by the names of parameters where both know them. Every tensor of the state keeps its own dtype."""
        wanted = matched(self, state_dict) or state_dict
        super().load_state_dict(dict(wanted))
        as_saved(self, wanted)

    def __getstate__(self) -> dict[str, Any]:
        ordered = [self.role(p) for group in self.param_groups for p in group["params"]]
        return {**super().__getstate__(), "netwright": (catalogue.travelling(self.part), self._known, ordered)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "netwright" in state:
            part, self._known, ordered = state.pop("netwright")
            self.part = catalogue.arrived(part)
            held = [p for group in state["param_groups"] for p in group["params"]]
            self._roles = {id(p): role for p, role in zip(held, ordered, strict=True)}
        super().__setstate__(state)


@cache
def _named(text: str) -> tuple[Any, dict[str, Any]]:
    """An optimizer with all its options, by its text: asked for at every step."""
    part: Any
    part, given = catalogue.parse(text, catalogue.kind_with(OPTIMIZER))
    return part, part.resolve(given)


def followed(master: Tensor | None, p: Tensor) -> Tensor:
    """The float32 value of a parameter in half precision; where that was set from outside, its value there."""
    now = p.float()
    return now if master is None else torch.where(master.to(p.dtype) == p, master, now)


def _flat(t: Tensor) -> Tensor:
    return t.reshape(-1)


def _cut(state: State, sizes: Sequence[int]) -> list[State]:
    """A flat state as one for each tensor; what has no axes is every tensor's."""
    cut = {name: t.split(list(sizes)) for name, t in state.items() if t.dim()}
    scalars = {name: t for name, t in state.items() if not t.dim()}
    return [{**{name: pieces[i].clone() for name, pieces in cut.items()}, **scalars} for i in range(len(sizes))]


def as_saved(optimizer: torch.optim.Optimizer, state_dict: Mapping[str, Any]) -> None:
    """Give what was loaded the dtype it was saved with: torch makes all of a parameter's state of its dtype."""
    places = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [i for group in state_dict["param_groups"] for i in group["params"]]
    for p, number in zip(places, numbers, strict=True):
        for name, value in state_dict["state"].get(number, {}).items():
            if isinstance(value, Tensor) and optimizer.state[p][name].dtype != value.dtype:
                optimizer.state[p][name] = value.detach().clone().to(p.device)


def matched(optimizer: torch.optim.Optimizer, state_dict: Mapping[str, Any]) -> dict[str, Any] | None:
    """A saved state in the order of the optimizer's own groups, by name; None where names aren't known on both sides.

    A group whose tensors are all new starts afresh. Raises BadInput where a saved tensor isn't there now, or a tensor of a
    group that was saved is not in what was.
    """
    saved, own = state_dict["param_groups"], optimizer.param_groups
    if not all("param_names" in group for group in (*saved, *own)):
        return None
    where = {name: (group, number) for group in saved for name, number in zip(group["param_names"], group["params"], strict=True)}
    names = {name for group in own for name in group["param_names"]}
    if lost := sorted(set(where) - names):
        raise BadInput(f"the saved state is of {lost[0]!r}, which this optimizer doesn't have; it has {_some(names)}")
    groups, state, count = [], {}, 0
    for group in own:
        known = [name for name in group["param_names"] if name in where]
        if known and len(known) < len(group["param_names"]):
            new = next(name for name in group["param_names"] if name not in where)
            raise BadInput(f"the saved state has nothing of {new!r}; put what is new into a group of its own")
        first = where[known[0]][0] if known else {k: v for k, v in group.items() if k != "params"}
        numbers = list(range(count, count + len(group["params"])))
        for name, number in zip(group["param_names"], numbers, strict=True):
            if name in where and where[name][1] in state_dict["state"]:
                state[number] = state_dict["state"][where[name][1]]
        groups.append({**first, "params": numbers, "param_names": list(group["param_names"])})
        count += len(numbers)
    return {**state_dict, "state": state, "param_groups": groups}


def _some(names: Any) -> str:
    first = sorted(names)[:3]
    return ", ".join(first) + (", ..." if len(names) > 3 else "")
