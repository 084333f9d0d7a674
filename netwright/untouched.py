"""Running a net that belongs to someone else: what a forward leaves behind is undone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.parameter import is_lazy


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
