"""A vision transformer of 12 blocks, what a training step of it keeps for the backward, and its peak on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from netwright.core import catalogue

F = nn.functional


class Block(nn.Module):
    """Pre-norm attention and MLP, as in ViT."""

    def __init__(self, d: int, heads: int, act: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.act, self.down = nn.Linear(d, 4 * d), act, nn.Linear(4 * d, d)
        self.heads = heads

    def forward(self, x_BLD: Tensor) -> Tensor:
        b, length, d = x_BLD.shape
        q, k, v = self.qkv(self.norm1(x_BLD)).reshape(b, length, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, length, d)
        x_BLD = x_BLD + self.out(mixed)
        return x_BLD + self.down(self.act(self.up(self.norm2(x_BLD))))


def vit(act: Callable[[], nn.Module], d: int = 384, heads: int = 6, blocks: int = 12) -> nn.Module:
    """12 blocks of width 384 with 6 heads (ViT-S) and a readout; input (B, L, 384), patches already embedded."""
    torch.manual_seed(0)
    return nn.Sequential(*(Block(d, heads, act()) for _ in range(blocks)), nn.LayerNorm(d), nn.Linear(d, 10))


def kept_bytes(act: Callable[[], nn.Module], batch: int = 4, length: int = 197) -> int:
    """Bytes the forward of one training step keeps: distinct storages, parameters aside."""
    net, x = vit(act), torch.randn(batch, length, 384)
    own = {p.untyped_storage().data_ptr() for p in net.parameters()}
    held: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() not in own:
            held[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = net(x)
    total = sum(held.values())
    del y
    return total


def kept() -> dict[str, Any]:
    """ViT-S, float32: bytes kept with ReGELU2 over those with torch's GELU."""
    ours = kept_bytes(lambda: catalogue.make("regelu2", fused=True))
    theirs = kept_bytes(nn.GELU)
    return {"GELU": theirs, "ReGELU2": ours, "share saved": round(1 - ours / theirs, 4)}


def on_gpu(names: Sequence[str]) -> dict[str, Any]:
    """Forward times in bfloat16 at 2^26 in units of torch.relu, the copy rate, and the peak memory of a ViT step."""
    device = torch.device("cuda")
    x = torch.randn(2**26, device=device, dtype=torch.bfloat16)
    target = torch.empty_like(x)

    def seconds(work: Callable[[], Any]) -> float:
        for _ in range(3):
            work()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(20):
            work()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 20e3

    copy = seconds(lambda: target.copy_(x))
    rows = {}
    with torch.no_grad():
        for name in ("relu", *names):
            built = catalogue.make(name, fused=True).to(device)
            peer = sorted(seconds(lambda: torch.relu(x)) for _ in range(5))[2]
            rows[name] = round(sorted(seconds(lambda: built(x)) for _ in range(5))[2] / peer, 3)  # noqa: B023
    return {
        "device": torch.cuda.get_device_name(),
        "copy, TB/s": round(2 * x.numel() * x.element_size() / copy / 1e12, 3),
        "forward at 2^26 in bfloat16, in units of torch.relu": rows,
        "over 1.15": {name: value for name, value in rows.items() if value > 1.15},
        "peak bytes of a ViT step": {"GELU": _peak(nn.GELU), "ReGELU2": _peak(lambda: catalogue.make("regelu2", fused=True))},
    }


def _peak(act: Callable[[], nn.Module]) -> int:
    net = vit(act).to("cuda")
    optimizer = torch.optim.AdamW(net.parameters())
    x, y = torch.randn(64, 197, 384, device="cuda"), torch.zeros(64, 197, dtype=torch.long, device="cuda")
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        with torch.autocast("cuda", torch.bfloat16):
            loss = F.cross_entropy(net(x).flatten(0, 1), y.flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return torch.cuda.max_memory_allocated()
