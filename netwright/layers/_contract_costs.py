"""Declared costs of layers and norms against what is counted as they run."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from netwright.core.contract import expect
from netwright.layers._contract_cases import cases
from netwright.tensor.modules import SizedPart
from netwright.tensor.tap import tapped

#: Moves, views and fills: no arithmetic.
_FREE = set(
    """
    _to_copy alias as_strided bernoulli cat clone constant_pad_nd copy detach diagonal empty expand eye fill flip full
    gather index index_select lift_fresh new_empty new_full new_ones new_zeros ones ones_like permute rand randn repeat
    reshape roll scalar_tensor select slice split split_with_sizes squeeze stack t transpose unbind unfold unsqueeze view
    zeros zeros_like empty_like arange linspace index_put scatter rand_like randn_like full_like im2col _unsafe_view
    _reshape_alias unsafe_split zero normal uniform tril triu tril_indices triu_indices empty_strided replication_pad1d
    _local_scalar_dense is_same_size
    """.split()
)
#: Counted as products by torch's own counter.
_PRODUCTS = set(
    """
    mm addmm bmm baddbmm convolution _convolution convolution_backward dot mv linear _scaled_mm mkldnn_convolution
    """.split()
)
#: What one kernel does to a value, as if it were written out: mean, difference, square, its mean, quotient, scale, shift.
_KERNELS = dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit", "native_layer_norm", "native_group_norm"), 7)


@final
class Pointwise(TorchDispatchMode):
    """Within it `count` grows by one for every value an arithmetic operation gives, or reads where it gives fewer."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.rstrip("_")
        if name not in _FREE and name not in _PRODUCTS:
            given = [a for a in args if isinstance(a, Tensor)]
            several = out if isinstance(out, (tuple, list)) else (out,)
            first = next((o for o in several if isinstance(o, Tensor)), None)
            sizes = [t.numel() for t in (*given, first) if t is not None and t.dtype != torch.bool]
            self.count += _KERNELS.get(name, 1) * max(sizes, default=0)
        return out


def costs(part: SizedPart) -> None:
    """Declared parameters and products equal the counted ones; elementwise work is within a factor of two of the count."""
    from torch.utils.flop_counter import FlopCounterMode

    for case in cases(part):
        built, x = case.build(torch.float32), case.rows(5, dtype=torch.float32)
        count = sum(p.numel() for p in built.parameters() if p.requires_grad)
        expect(
            part.cost(built, "parameters") == count, "parameters", given=case, got=part.cost(built, "parameters"), wanted=count
        )
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            y = built(x)
        inner = sum(
            m.part.rows(m, x) * m.part.cost(m, "products", x, y) for m in built.modules() if m is built and hasattr(m, "part")
        )
        counted = counter.get_total_flops()
        expect(math.isclose(inner, counted), "products", given=case, got=inner, wanted=counted)
        said = 0.0

        def look(path: str, module: Any, args: Any, output: Any) -> None:
            nonlocal said
            said += module.part.operations(module, args[0], output)  # noqa: B023

        parts = {path: m for path, m in built.named_modules() if hasattr(getattr(m, "part", None), "operations")}
        with tapped(parts, look), torch.no_grad(), Pointwise() as seen:
            built(x)
        fits = seen.count / 2 <= said <= 2 * seen.count or max(seen.count, said) <= 2 * y.numel()
        expect(fits, "elementwise operations", given=case, got=said, wanted=f"about {seen.count}")
