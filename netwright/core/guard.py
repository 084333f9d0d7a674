"""What runs code of others safely: it can't end the program, nor leave the process other than it was.

    with foreign("the loss of mine"):
        value = loss(out, y)

SystemExit and its like become Escape, an ordinary error that makes a row or names a plug-in; only a person's own Ctrl-C passes,
as Interrupted. Defaults that the code has rebound are put back, and drain() says which.
"""

from __future__ import annotations

import functools
import gc
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, final

#: How the names of variables begin that torch's profiler and compiler set themselves.
TORCHS_OWN = ("TORCH", "PYTORCH", "TRITON", "KINETO", "TEARDOWN_CUPTI", "DISABLE_CUPTI", "CUDA_MODULE", "KMP_")

_noted: dict[str, None] = {}


class Escape(RuntimeError):
    """What code of others raised to leave the program with, as an ordinary error."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, pressed by a person. A bare KeyboardInterrupt may have been raised by anybody."""


class Spent(Exception):
    """The time that work was given is over, between two pieces of it."""


def drain() -> tuple[str, ...]:
    """What code of others has changed in this process since the last call, one line each."""
    found = tuple(_noted)
    _noted.clear()
    return found


def remark(text: str) -> None:
    """Adds a line to what drain() gives."""
    _noted[text] = None


@contextmanager
def foreign(who: str, importing: bool = False) -> Iterator[None]:
    """Code of `who` runs inside. importing: a module of it is read, which may set the environment, paths and filters of
    warnings for good."""
    pid, before, modules = os.getpid(), _snapshot(), len(sys.modules)
    handler = _listen()
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if os.getpid() != pid:  # a child that the code forked: its end is its own, and no second study
            os._exit(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1)
        if isinstance(error, KeyboardInterrupt) and _pressed(error):
            raise
        raise Escape(f"{error!r} would have ended the program") from error
    finally:
        importing = importing or len(sys.modules) > modules
        for state, value in before:
            if not state.same(value) and not (importing and state.by_imports):
                state.put(value)
                if state.named:
                    _noted[f"{who} changed {state.what}; it was put back"] = None
        _unlisten(handler)


def kept(who: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with torch's defaults watched, which is cheap enough for every step; the rest is left to foreign()."""

    @functools.partial(functools.update_wrapper, wrapped=function, updated=())
    def watched(*args: Any) -> Any:
        states = _torch_defaults()
        before = [state.get() for state in states]
        try:
            return function(*args)
        finally:
            for state, value in zip(states, before, strict=True):
                if state.get() != value:
                    state.put(value)
                    _noted[f"{who} changed {state.what}; it was put back"] = None

    return watched


# Ctrl-C ---------------------------------------------------------------------------------------------------------------


@final
class Stopping:
    """Ctrl-C inside: the first is remembered, and check() raises it between two pieces of work; the second stops at once.

    minutes: after so many check() raises Spent.
    """

    def __init__(self, tell: Callable[[str], None], minutes: float | None = None) -> None:
        self.tell = tell
        self.until = None if minutes is None else time.monotonic() + 60 * minutes
        self.times = 0
        self._before: Any = None

    def __enter__(self) -> Stopping:
        if _ours_to_take():
            self._before = signal.signal(signal.SIGINT, self.press)
        return self

    def __exit__(self, *_: object) -> None:
        _unlisten(self._before)

    def press(self, number: int, frame: Any) -> None:
        """The handler of the signal."""
        self.times += 1
        if self.times > 1:
            raise Interrupted
        self.tell("stopping when what is running now is done; press Ctrl-C again to stop at once")

    def check(self) -> None:
        """Raises Interrupted where a stop was asked for, Spent where the time is over."""
        if self.times:
            raise Interrupted
        if self.until is not None and time.monotonic() > self.until:
            raise Spent


def _ours_to_take() -> bool:
    """Whether a Ctrl-C comes to this thread, and nobody else has a use for it."""
    main = threading.current_thread() is threading.main_thread()
    return main and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _raise(number: int, frame: Any) -> None:
    raise Interrupted


def _listen() -> Any:
    """Lets a Ctrl-C be told from what code raises; returns the handler to put back, or None where there is none."""
    return signal.signal(signal.SIGINT, _raise) if _ours_to_take() else None


def _unlisten(handler: Any) -> None:
    if handler is not None:
        signal.signal(signal.SIGINT, handler)


def _pressed(error: KeyboardInterrupt) -> bool:
    """Whether a person may have pressed Ctrl-C: by its type, or because a handler of somebody else raises what it likes."""
    if isinstance(error, Interrupted):
        return True
    if threading.current_thread() is not threading.main_thread():
        return False
    handler = signal.getsignal(signal.SIGINT)
    return handler not in (signal.SIG_IGN, signal.SIG_DFL) and getattr(handler, "__module__", "") != __name__


# The state of a process -------------------------------------------------------------------------------------------------


class State(NamedTuple):
    """Something of the process that code can rebind."""

    what: str
    get: Callable[[], Any]
    put: Callable[[Any], Any]
    named: bool = True  # whether a change is worth a note
    by_imports: bool = False  # whether importing a package may change it for good

    def same(self, value: Any) -> bool:
        try:
            return bool(self.get() == value)
        except Exception:  # a folder that is gone; arrays, which compare by element and are put back anyway
            return False


def _snapshot() -> list[tuple[State, Any]]:
    states = [*_python(), *_draws(), *_torch_defaults(), *_torch_settings()]
    found = []
    for state in states:
        with suppress(OSError):  # a working folder that was deleted
            found.append((state, state.get()))
    return found


@functools.cache
def _python() -> tuple[State, ...]:
    def read() -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith(TORCHS_OWN)}

    def environment(value: dict[str, str]) -> None:
        for name in read().keys() - value:
            del os.environ[name]
        os.environ.update(value)

    def filters(value: list[Any]) -> None:
        warnings.filters[:] = value  # type: ignore[index]
        with warnings.catch_warnings():  # which makes the module notice
            pass

    def paths(value: list[str]) -> None:
        sys.path[:] = value

    def attribute(name: str) -> State:
        return State(f"sys.{name}", lambda: getattr(sys, name), lambda value: setattr(sys, name, value))

    return (
        State("the working folder", os.getcwd, os.chdir),
        State("os.environ", read, environment, by_imports=True),
        State("the filters of warnings", lambda: list(warnings.filters), filters, by_imports=True),
        State("sys.path", lambda: list(sys.path), paths, by_imports=True),
        State("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit, by_imports=True),
        State("garbage collection", gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
        *map(attribute, ("stdout", "stderr", "excepthook")),
    )


def _draws() -> tuple[State, ...]:
    """The global random states: drawing from them is no offence, but nobody else should notice."""
    states = [State("Python's random state", random.getstate, random.setstate, named=False)]
    if numpy := sys.modules.get("numpy"):
        states.append(State("NumPy's random state", numpy.random.get_state, numpy.random.set_state, named=False))
    if torch := sys.modules.get("torch"):
        states.append(State("torch's random state", torch.get_rng_state, torch.set_rng_state, named=False))
    return tuple(states)


def _torch_defaults() -> tuple[State, ...]:
    return _defaults() if "torch" in sys.modules else ()


@functools.cache
def _defaults() -> tuple[State, ...]:
    import torch

    def device() -> Any:
        context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
        return None if context is None else context.device

    return (
        State("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
        State("torch's default device", device, torch.set_default_device),
        State("whether torch takes gradients", torch.is_grad_enabled, torch._C._set_grad_enabled),
    )


def _torch_settings() -> tuple[State, ...]:
    return _settings() if "torch" in sys.modules else ()


@functools.cache
def _settings() -> tuple[State, ...]:
    import numpy
    import torch

    def deterministic() -> tuple[bool, bool]:
        return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()

    def cudnn(name: str) -> State:
        found = torch.backends.cudnn
        return State(f"cudnn.{name}", lambda: getattr(found, name), lambda value: setattr(found, name, value))

    return (
        State("torch's number of threads", torch.get_num_threads, torch.set_num_threads),
        State("torch's matmul precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        State(
            "torch's deterministic algorithms",
            deterministic,
            lambda on: torch.use_deterministic_algorithms(on[0], warn_only=on[1]),
        ),
        State("torch's anomaly detection", torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
        *map(cudnn, ("benchmark", "deterministic")),
        State("NumPy's handling of errors", numpy.geterr, lambda value: numpy.seterr(**value)),
    )
