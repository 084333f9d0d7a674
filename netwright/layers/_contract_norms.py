"""What a norm has to hold beside what all layers do: where its channels lie, and what it keeps of a direction."""

from __future__ import annotations

import torch

from netwright.core.contract import expect
from netwright.layers._contract_cases import Case, cases, default, near, raises
from netwright.layers._kind import LayerPart


def shape(part: LayerPart) -> None:
    """The shape is kept; channels may lie anywhere behind the rows, positions in any shape; none is needed."""
    for case in cases(part):
        built, x = case.build(shaken=True), case.rows(4)
        y = built(x)
        expect(y.shape == x.shape, "shape", given=case, got=tuple(y.shape), wanted=tuple(x.shape))
        near("positions in two dimensions", built(x.unflatten(-1, (2, -1))), y.unflatten(-1, (2, -1)), 1e-9, case)
        last = Case(part, {**case.options, "channel_dim": -1}).build()
        last.load_state_dict(built.state_dict())
        near("channels last", last(x.transpose(1, 2)), y.transpose(1, 2), 1e-9, case)
        near("a non-contiguous batch", built(torch.stack((x, x), 1)[:, 0]), y, 1e-9, case)
        expect(built(x[:, :, 0]).shape == x.shape[:2], "without positions", given=case)
        expect(built(x[:0]).shape == (0, *x.shape[1:]), "an empty batch", given=case)
    built, x = default(part).build(), default(part).rows()
    raises("a wrong number of channels", str(x.shape[1] + 1), lambda: built(torch.cat((x, x[:, :1]), 1)))
    raises("no such dimension", "channel_dim=3", lambda: Case(part, {"channel_dim": 3}).build()(x))


def nonlinear(part: LayerPart) -> None:
    """A norm that takes the activation's place is nonlinear along a ray; one that doesn't keeps directions from the centre."""
    built, x = default(part).build(shaken=True), default(part).rows(4)
    up, down, zero = built(x), built(-x), built(torch.zeros_like(x))
    odd = float((up + down - 2 * zero).abs().max()) <= 1e-9
    expect(odd != part.tags.nonlinear, "f(x) + f(-x) = 2 f(0) and the tag nonlinear exclude each other", got=odd)
