"""What rules that backpropagate share: the chain rule by hand for the net of Toy."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from netwright.rules._toy import linear_gradients, softmax_error


def chain(net: Any, x: Tensor) -> list[Tensor]:
    """x, the output of every dense ReLU block, and the logits."""
    hidden = [x]
    for block in net.blocks:
        hidden.append((hidden[-1] @ block[0].weight.T + block[0].bias).clamp(min=0))
    return [*hidden, hidden[-1] @ net.readout.weight.T + net.readout.bias]


def chain_rule(net: Any, x: Tensor, y: Tensor, extra: dict[int, Tensor] | None = None) -> dict[str, Tensor]:
    """delta_k = (delta_(k+1) W_(k+1) + extra_k) * 1[h_k > 0] and dW_k = delta_k^T h_(k-1), with delta = p - Y at the logits.

    extra: by block, counted from 0, the gradient of what else reads its output.
    """
    *hidden, out = chain(net, x)
    delta = softmax_error(out, y)
    grads = linear_gradients("net.readout", delta, hidden[-1])
    above = net.readout
    for k in reversed(range(len(net.blocks))):
        reaching = delta @ above.weight
        if extra and k in extra:
            reaching = reaching + extra[k]
        delta = reaching * (hidden[k + 1] > 0)
        grads |= linear_gradients(f"net.blocks.{k}.0", delta, hidden[k])
        above = net.blocks[k][0]
    return grads
