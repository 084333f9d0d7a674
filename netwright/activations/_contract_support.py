"""What an activation works with: checks of torch.export, ONNX and the double backward.

A check that can't hold (an operator ONNX lacks) is declared like any other: Tags(reasons={"onnx": why}).
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from netwright.activations._contract_settings import shift
from netwright.activations._kind import ActivationPart
from netwright.core.contract import Check, Skip, expect

WIDTH = 6
#: What the ONNX check needs besides torch.
ONNX = ("onnx", "onnxscript", "onnxruntime")


def _rows(count: int, width: int = WIDTH, dtype: torch.dtype = torch.float32) -> Tensor:
    g = torch.Generator().manual_seed(19)
    return (2 * torch.randn(count, width, generator=g, dtype=torch.float64)).to(dtype)


def _built(part: ActivationPart) -> nn.Module:
    """The module in evaluation mode, its learnable parameters off their initial values."""
    return shift(part.build(channels=WIDTH, channel_dim=-1), 0).eval()


def _near(what: str, got: Tensor, wanted: Tensor, tolerance: float) -> None:
    expect(got.shape == wanted.shape, f"{what}: shape", got=tuple(got.shape), wanted=tuple(wanted.shape))
    expect(got.dtype == wanted.dtype, f"{what}: dtype", got=got.dtype, wanted=wanted.dtype)
    gap = (got.double() - wanted.double()).abs().nan_to_num(torch.inf).max()
    scale = max(1.0, float(wanted.double().abs().max()))
    expect(float(gap) <= tolerance * scale, what, got=f"a difference of {float(gap):.3g}", wanted=f"at most {tolerance:g}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' warnings, log lines and prints: what matters of them is what they raise."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@torch.no_grad()
def exports(part: ActivationPart) -> None:
    """torch.export takes the module with any number of rows, and the exported program gives the module's output."""
    built = _built(part)
    with _quiet():
        program = torch.export.export(built, (_rows(4),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    run = program.module()
    for count in (4, 9):
        x = _rows(count)
        _near(f"exported, {count} rows", run(x), built(x), 1e-6)


@torch.no_grad()
def onnx(part: ActivationPart) -> None:
    """torch.onnx exports the module with any number of rows, and onnxruntime gives the module's float32 output."""
    for name in ONNX:
        if importlib.util.find_spec(name) is None:
            raise Skip(f"{name} is not installed")
    import onnxruntime

    built = _built(part)
    with _quiet():
        program = torch.onnx.export(
            built, (_rows(4),), dynamo=True, verbose=False, dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
        )
    assert program is not None
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    for count in (4, 9):
        x = _rows(count)
        (y,) = session.run(None, {taken.name: x.numpy()})
        _near(f"in onnxruntime, {count} rows", torch.from_numpy(y), built(x), 1e-5)


def double_backward(part: ActivationPart) -> None:
    """The gradient of the gradient, by input and parameters, agrees with differences of the gradient in float64."""
    if not part.tags.exact_gradient:
        raise Skip("its backward is declared not to be the derivative of its forward")
    if part.tags.shape == "elementwise" and not part.tags.smooth:
        raise Skip("not smooth: its gradient jumps")
    built = shift(part.build(channels=WIDTH, channel_dim=-1).double(), 0).eval()
    names = [name for name, _ in built.named_parameters()]

    def function(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(built, dict(zip(names, values, strict=True)), (x,))

    x = _rows(2, dtype=torch.float64)
    given = [t.detach().requires_grad_() for t in (x, *built.parameters())]
    handed = _rows(2, int(WIDTH * part.ratio), torch.float64).flip(0).requires_grad_()
    try:
        torch.autograd.gradgradcheck(function, given, handed, atol=1e-5, rtol=1e-4)
    except RuntimeError as error:  # the kind that gradgradcheck raises
        expect(False, "the gradient of the gradient is off", got=" ".join(str(error).split())[:300])


#: Sampled like the checks that compile: exporting takes seconds a part.
CHECKS = (
    Check("exports", exports, needs_compile=True, one_in=40),
    Check("onnx", onnx, needs_compile=True, one_in=40),
    Check("double_backward", double_backward),
)
