"""What an activation works with: checks of torch.export, ONNX and the double backward, and the rows of the support matrix.

A check that can't hold (an operator ONNX lacks) is declared like any other: Tags(reasons={"onnx": why}).
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from netwright.activations._contract_settings import shift
from netwright.activations._kind import ActivationPart
from netwright.core.contract import Check, Skip, expect
from netwright.core.part import Part
from netwright.corpus.status import evidence

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
        )  # fmt: skip
    assert program is not None
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        program.model_proto.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )  # fmt: skip
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

# The support matrix ---------------------------------------------------------------------------------------------------

#: Column of the matrix of activations -> the check that decides it.
COLUMNS = {
    "autocast": "autocast",
    "torch.compile, full graph": "compiled",
    "fused=True": "fused",
    "torch.export": "exports",
    "ONNX": "onnx",
    "vmap": "vmap",
    "meta device": "meta",
    "double backward": "double_backward",
    "float16": "numbers",
    "bfloat16": "numbers",
}
#: The same for layers and norms.
SIZED = {
    "autocast": "autocast",
    "torch.compile, full graph": "compiled",
    "fused=True": "fused",
    "torch.export": "exports",
    "vmap": "vmap",
    "meta device": "initialised",
    "data-parallel": "ddp",
    "float16 and bfloat16": "dtype",
    "saved and copied": "copies",
}
#: Kind -> its columns. Other kinds have no such table.
KINDS = {"activation": COLUMNS, "layer": SIZED}
STATES = {
    "yes": "the check passes",
    "no": "the check fails",
    "exception": "can't hold, for a reason the part declares; the check is made all the same and has to fail",
    "not made": "the check says nothing of this part, or couldn't be made",
    "not measured": "no result is on record",
}


def support(part: Part, entry: Mapping[str, Any] | None = None) -> dict[str, tuple[str, str]]:
    """Column of the matrix -> (state, reason), from the part's entry in evidence/checks.json.

    entry: that entry, read from the evidence by default; without one, or without a result, a cell is "not measured".
    """
    results = (_recorded(part) if entry is None else entry).get("checks", {})
    refused = getattr(part.tags, "no_dtypes", ())
    return {
        column: ("exception", f"it has no kernel for {column}") if column in refused else _cell(results.get(check))
        for column, check in KINDS[part.kind].items()
    }


def _recorded(part: Part) -> Mapping[str, Any]:
    folder = evidence()
    path = folder / "checks.json" if folder is not None else None
    if path is None or not path.is_file():
        return {}
    return json.loads(path.read_text(encoding="utf-8"))["parts"].get(part.id, {})


def _cell(result: str | None) -> tuple[str, str]:
    """A result as checks.json words it, as state and reason."""
    head, _, rest = (result or "skip: not in the sample").partition(": ")
    if head == "pass":
        return "yes", ""
    if head != "skip":
        return "no", rest
    if rest == "not in the sample":
        return "not measured", ""
    declared, _, reason = rest.partition(": ")
    return ("exception", reason) if declared == "declared" else ("not made", rest)
