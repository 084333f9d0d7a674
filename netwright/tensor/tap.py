"""Looking into a net for a while: hooks that always come off again, and evaluation mode that is always left again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import nn


@contextmanager
def tapped(
    modules: Mapping[str, nn.Module] | Iterable[tuple[str, nn.Module]],
    look: Callable[[str, Any, Any, Any], Any] | None = None,
    *,
    before: Callable[[str, Any, Any, Any], Any] | None = None,
    always: bool = False,
) -> Iterator[None]:
    """Within it look(path, module, args, output) is called after every forward of the modules.

    modules: path -> module, or pairs of them, such as net.named_modules(), which names a shared module once. A module given
        under several paths is looked at under each.
    before: called ahead of every forward, before(path, module, args, kwargs).
    always: look is called after a forward that raised too, with None for its output.
    What they return is used as torch uses it: an output, or (args, kwargs), instead of the old; None changes nothing.
    """
    with ExitStack() as exits:
        for path, module in modules.items() if isinstance(modules, Mapping) else modules:
            if before is not None:
                exits.callback(module.register_forward_pre_hook(partial(before, path), with_kwargs=True).remove)
            if look is not None:
                exits.callback(module.register_forward_hook(partial(look, path), always_call=always).remove)
        yield


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Within it the net is in evaluation mode; afterwards every module is back in its own.

    A module that writes its own train(), to merge weights, say, or to keep a part frozen, is told of both changes.
    """
    modes = [(m, m.training) for m in net.modules() if hasattr(m, "training")]  # frozen TorchScript has no mode
    try:
        net.eval()
        yield
    finally:
        for module, training in modes:  # parents first: a train() of one's own may reach below
            if module.training != training and getattr(module.train, "__func__", None) is not nn.Module.train:
                module.train(training)
        for module, training in modes:
            module.training = training
