"""The contract of a layer: checks of its shape classes here, of norms and of all layers in _contract_<property>.py."""

from __future__ import annotations

import torch

from netwright.core.contract import Check, Skip, expect
from netwright.core.errors import BadInput
from netwright.layers import _contract_norms as norms
from netwright.layers._contract_building import arguments, copies, initialised
from netwright.layers._contract_cases import Case, cases, default, near, raises
from netwright.layers._contract_costs import costs
from netwright.layers._contract_numbers import autocast, dtype, finite, gradcheck, mates, pure, reference
from netwright.layers._contract_training import ddp, descent, used
from netwright.layers._contract_transforms import compiled, exports, fused, vmap
from netwright.layers._kind import LayerPart


def shape(part: LayerPart) -> None:
    """Any leading shape, none too, an empty and a non-contiguous batch; a wrong width is refused by name."""
    if part.tags.shape == "norm":
        return norms.shape(part)
    for case in cases(part):
        built, x = case.build(), case.rows(6)
        y = built(x)
        for lead in ((2, 3), (1, 6, 1)):
            near(f"leading shape {lead}", built(x.view(*lead, *x.shape[1:])), y.view(*lead, *y.shape[1:]), 1e-9, case)
        near("no leading dimension", built(x[1]), y[1], 1e-9, case)
        empty = built(x[:0])
        expect(empty.shape == (0, *y.shape[1:]), "an empty batch", given=case, got=tuple(empty.shape))
        strided = torch.stack((x, x), 1)[:, 0]
        near("a non-contiguous batch", built(strided), y, 1e-9, case)
    built, x = default(part).build(), default(part).rows()
    axis = 1 if part.tags.shape in ("conv", "channelwise") else -1
    raises("a wrong width", str(x.shape[axis] + 1), lambda: built(torch.cat((x, x.narrow(axis, 0, 1)), axis)))


def width(part: LayerPart) -> None:
    """The output has the sizes that are asked for."""
    for case in cases(part):
        built, x = case.build(), case.rows()
        y, sizes = built(x), built.sizes
        kind = part.tags.shape
        if kind in ("linear", "sequence"):
            wanted = (*x.shape[:-1], sizes["d_out"])
        elif kind in ("channelwise", "norm"):
            wanted = tuple(x.shape)
        else:
            names = ("kernel_size", "stride", "padding", "dilation")
            plain = getattr(torch.nn, f"Conv{built.dims}d")(
                sizes["c_in"], sizes["c_out"], **{n: sizes[n] for n in names}, device="meta"
            )
            wanted = tuple(plain(x.float().to("meta")).shape)
        expect(tuple(y.shape) == wanted, "shape of the output", given=case, got=tuple(y.shape), wanted=wanted)


def geometry(part: LayerPart) -> None:
    """A convolution takes stride, padding and dilation, one number or one a dimension, and has the reference's values."""
    if part.tags.shape != "conv":
        raise Skip("not a convolution")
    case = default(part)
    both = {"stride": 2, "padding": 1, "kernel_size": 2}
    for own in ({"stride": 2}, {"padding": 1}, {"dilation": 2}, {"kernel_size": 1}, both):
        other = Case(part, {**case.options, **own})
        try:
            built = other.build(shaken=True).requires_grad_(False)
        except BadInput:
            continue  # a geometry the part says it can't have
        x = other.rows(2)
        plain = getattr(torch.nn, f"Conv{built.dims}d")(
            built.sizes["c_in"],
            built.sizes["c_out"],
            **{n: built.sizes[n] for n in ("kernel_size", "stride", "padding", "dilation")},
            device="meta",
        )
        expect(built(x).shape == plain(x.float().to("meta")).shape, "shape of the output", given=own)
        assert part.reference is not None
        near("differs from the reference", built(x), part.reference(built, x), 1e-9, own)


def channels_last(part: LayerPart) -> None:
    """In two dimensions a module and an image with the channels innermost give the same, as torch's own convolutions do."""
    for case in cases(part):
        built = case.build(torch.float32, shaken=True)
        if part.tags.shape not in ("conv", "channelwise") or built.dims != 2:
            continue
        x = case.rows(dtype=torch.float32)
        y = built(x)
        other = built.to(memory_format=torch.channels_last)
        near("channels innermost", other(x.to(memory_format=torch.channels_last)), y, 1e-5, case)
        return
    raise Skip("not a layer of images")


def causal(part: LayerPart) -> None:
    """No output of a causal layer sees a later row; one that isn't tagged causal does."""
    if part.tags.shape != "sequence":
        raise Skip("not a layer of sequences")
    for case in cases(part):
        built, x = case.build(shaken=True), case.rows()
        changed = x.clone()
        changed[:, -1] += 1.0
        before, after = built(x)[:, :-1], built(changed)[:, :-1]
        if part.tags.causal:
            near("an output sees a later row", after, before, 1e-12, case)
        elif case.options == default(part).options:
            expect(not torch.equal(before, after), "no output sees the last row; tag it causal", given=case)


def nonlinear(part: LayerPart) -> None:
    """f(x) + f(z) = f(x + z) + f(0) exactly where the layer is tagged affine and not nonlinear; of a norm see _contract_norms."""
    if part.tags.shape == "norm":
        return norms.nonlinear(part)
    built = default(part).build(shaken=True).requires_grad_(False)
    x, z = default(part).rows(4, seed=1), default(part).rows(4, seed=2)
    gap = (built(x) + built(z) - built(x + z) - built(torch.zeros_like(x))).abs().max()
    if part.tags.nonlinear or not part.tags.affine:
        expect(float(gap) > 1e-6, "is affine, yet tagged nonlinear or affine=False", got=float(gap))
    else:
        expect(float(gap) <= 1e-9, "isn't affine; tag it nonlinear, or affine=False where it wants an activation", got=float(gap))


CHECKS = (
    *(Check(f.__name__, f) for f in (shape, width, geometry, channels_last, causal, nonlinear)),
    *(
        Check(f.__name__, f)
        for f in (
            reference,
            pure,
            mates,
            finite,
            gradcheck,
            dtype,
            autocast,
            arguments,
            initialised,
            costs,
            descent,
            copies,
            used,
            vmap,
        )
    ),
    Check("exports", exports, slow=True, one_in=8),
    Check("compiled", compiled, needs_compile=True, one_in=12),
    Check("fused", fused, needs_compile=True, one_in=6),
    Check("ddp", ddp, slow=True, one_in=12),
)
