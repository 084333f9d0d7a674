"""One random generator a purpose and module path, so that one part's draws never shift another's.

Purposes in use: "split", "order", "augment", "draw", "init", "tune", "probe"; and of code of others, which draws from the
global generators: "forward", "init", "data", "call", "import".
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from netwright.core.errors import BadInput


def derive(seed: int, purpose: str, path: str = "") -> int:
    """A 63-bit seed for one purpose and path, independent of every other by way of SHA-256."""
    digest = hashlib.sha256(f"{seed}|{purpose}|{path}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: str, path: str = "", device: str = "cpu") -> torch.Generator:
    """A fresh generator seeded with derive(seed, purpose, path)."""
    return torch.Generator(device).manual_seed(derive(seed, purpose, path))


@contextmanager
def global_draws(seed: int, purpose: str, path: str = "") -> Iterator[None]:
    """Within it the global generators of Python, NumPy and torch, which dropout and code of others draw from, begin at
    derive(seed, purpose, path); afterwards they are as before."""
    start = derive(seed, purpose, path)
    python, numpy = random.getstate(), np.random.get_state()
    # those of a device are there only once it is in use
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()):
        random.seed(start)
        np.random.seed(start % 2**32)  # it takes no more
        torch.manual_seed(start)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def permutation(n: int, seed: int, purpose: str, path: str = "") -> Tensor:
    """A random order of 0 .. n-1."""
    return torch.randperm(n, generator=generator(seed, purpose, path))


def _uniform(t: Tensor | None, bound: float, g: torch.Generator) -> None:
    if t is not None:
        t.uniform_(-bound, bound, generator=g)


@torch.no_grad()
def _reset_torch(module: nn.Module, g: torch.Generator) -> bool:
    """PyTorch's own default distributions for the layers hosts are made of, drawn from g. False: not one of them."""
    if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        fan_in = module.weight[0].numel()
        bound = 1 / math.sqrt(fan_in) if fan_in else 0.0  # kaiming_uniform_(a=sqrt(5)) is U(-1/sqrt(fan_in), 1/sqrt(fan_in))
        _uniform(module.weight, bound, g)
        _uniform(module.bias, bound, g)
    elif isinstance(module, nn.Embedding):
        module.weight.normal_(generator=g)
        if module.padding_idx is not None:
            module.weight[module.padding_idx].zero_()
    elif isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._BatchNorm)):
        module.reset_parameters()  # constants only
    else:
        return False
    return True


def initialise(root: nn.Module, seed: int, prefix: str = "", skip: str | None = None) -> None:
    """Fill every parameter and buffer below `root`, each module from the generator of its own path.

    netwright modules are asked through `reset_parameters(generator)`, torch's through their own default distributions;
    a foreign module's `reset_parameters()` inside global_draws. Modules whose path starts with `skip` stay as they are.
    Raises BadInput for a module that holds parameters and offers no way to fill them.
    """
    for path, module in root.named_modules():
        full = f"{prefix}.{path}".strip(".")
        if skip is not None and (full == skip or full.startswith(skip + ".")):
            continue
        own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        if not own:
            continue
        g = generator(seed, "init", full)
        reset = getattr(module, "reset_parameters", None)
        if type(module).__module__.split(".")[0] != "torch" and reset is not None and takes_generator(reset):
            reset(g)
        elif not _reset_torch(module, g):
            if reset is None:
                raise BadInput(
                    f"{full or 'the module'} ({type(module).__name__}) holds parameters but has no reset_parameters(generator); "
                    "write one that fills each of them from the generator"
                )
            with global_draws(seed, "init", full):
                reset()


def takes_generator(function: object) -> bool:
    """Whether a reset_parameters accepts a generator argument."""
    import inspect

    try:
        return "generator" in inspect.signature(function).parameters  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return False
