"""Running a net that belongs to someone else: what a forward leaves behind is undone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_map_only

from netwright.core.errors import BadInput


def unwrap(model: nn.Module) -> tuple[str, nn.Module]:
    """The net inside DataParallel and DistributedDataParallel, and the prefix its paths have."""
    prefix = ""
    while isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        prefix, model = prefix + "module.", model.module
    return prefix, model


def plain_modules(model: nn.Module) -> Iterator[nn.Module]:
    """The modules whose attributes are Python's: those of TorchScript can take neither hooks nor attributes."""
    return (m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule))


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Undoes what a forward leaves behind: attributes, buffers, training flags, the global generators."""
    saved = [(m, dict(vars(m)), dict(m._buffers), dict(m._modules)) for m in plain_modules(model)]
    values = [(b, b.detach().clone()) for b in model.buffers() if not is_lazy(b)]
    cuda = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=cuda):
        try:
            yield
        finally:
            for module, attributes, buffers, children in saved:
                vars(module).clear()
                vars(module).update(attributes)
                for table, content in ((module._buffers, buffers), (module._modules, children)):
                    if table != content:
                        table.clear()
                        table.update(content)  # type: ignore[arg-type]
            with torch.no_grad():
                for buffer, value in values:
                    buffer.copy_(value)


@contextmanager
def quiet(net: nn.Module, training: bool = False) -> Iterator[None]:
    """Untouched, in one mode (by default evaluation: no dropout, no running statistics), without gradients."""
    fast = torch.backends.mha.get_fastpath_enabled()
    with untouched(net), torch.no_grad():
        for module in plain_modules(net):
            module.training = training
        torch.backends.mha.set_fastpath_enabled(False)  # the fused path calls no module
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


def call(net: nn.Module, example: Any) -> Any:
    """net's output for an example: a tensor, a tuple of positional or a mapping of keyword arguments, left unchanged."""
    given = example if isinstance(example, (tuple, Mapping)) else (example,)
    given = tree_map_only(Tensor, lambda t: t.detach().clone(), dict(given) if isinstance(given, Mapping) else given)
    if isinstance(given, dict):
        return net(**given)
    return net(*given)


def unrunnable(error: Exception) -> BadInput:
    """The error for an example that a forward could not take."""
    return BadInput(
        f"the example could not be run: {type(error).__name__}: {error}; give a tensor, a tuple of positional "
        "arguments or a mapping of keyword arguments of the model's forward"
    )
