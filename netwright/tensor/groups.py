"""Parameter groups of a model: which tensors an optimizer gets, under which names, and which of them weight decay spares.

They are lists of dicts, as any torch optimizer takes them, and know besides what each tensor is (netwright.tensor.modules).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, final

from torch import nn

from netwright.core.errors import BadInput
from netwright.tensor.modules import Role, roles


def spared(module: nn.Module) -> set[int]:
    """ids of parameters that weight decay leaves alone: vectors and scalars (biases, norms), and what a part spares."""
    out = {id(p) for p in module.parameters() if p.dim() < 2}
    for sub in module.modules():
        spares = [getattr(sub, name) for name in getattr(sub, "no_decay", ())]
        out |= {id(p) for p in spares if p is not None}  # a part may do without one by its options
    return out


@final
class Groups(list[dict[str, Any]]):
    """Groups of named parameters, as torch's optimizers take them. `roles`: what each tensor of the model is, by its name."""

    def __init__(self, groups: Iterable[dict[str, Any]], model: nn.Module, known: dict[str, Role] | None = None) -> None:
        super().__init__(groups)
        self.model, self._roles = model, known

    @property
    def roles(self) -> Mapping[str, Role]:
        """Looked up on first need: most optimizers take every tensor alike."""
        if self._roles is None:
            self._roles = roles(self.model)
        return self._roles


def parameter_groups(model: nn.Module, weight_decay: float = 0.0, only: Collection[nn.Parameter] | None = None) -> Groups:
    """What learns in a model as one group that decays and one that doesn't; a group without tensors is left out.

    Vectors and scalars (biases, norms) and whatever a part spares (`no_decay`) don't decay. only: these parameters alone.
    Usable with any optimizer of torch: torch.optim.AdamW(parameter_groups(model, 0.01), lr=1e-3).
    Raises BadInput for a negative decay and where nothing is left to train.
    """
    if not weight_decay >= 0:
        raise BadInput(f"weight_decay={weight_decay!r}; expected a number from 0")
    names = {id(p): name for name, p in model.named_parameters()}
    learns = [p for p in model.parameters() if p.requires_grad] if only is None else list(only)
    if strange := [tuple(p.shape) for p in learns if id(p) not in names]:
        raise BadInput(f"a tensor of shape {strange[0]} is no parameter of the {type(model).__name__}")
    if not learns:
        raise BadInput(f"the {type(model).__name__} has no parameter that learns (requires_grad)")
    off = spared(model)
    split = [p for p in learns if id(p) not in off], [p for p in learns if id(p) in off]
    groups = [
        {"params": [(names[id(p)], p) for p in part], "weight_decay": decay}
        for part, decay in zip(split, (weight_decay, 0.0), strict=True)
        if part
    ]
    return Groups(groups, model)
