"""Data-parallel training on two processes, for the check `ddp`."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from netwright.core import catalogue

ROWS, RATE = 8, 0.1


def _step(model: nn.Module, x: Tensor, target: Tensor) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=RATE)
    (model(x) - target).square().flatten(1).mean(1).mean().backward()
    optimizer.step()


def _batch(name: str, options: dict[str, Any]) -> tuple[Any, Tensor, Tensor]:
    from netwright.layers._contract_cases import Case

    part: Any = catalogue.get(name)
    case = Case(part, options)
    built, x = case.build(train=True), case.rows(ROWS)
    return built, x, case.build(seed=7, shaken=True)(x).detach()


def _work(rank: int, name: str, options: dict[str, Any], port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = "127.0.0.1", str(port)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    built, x, target = _batch(name, options)
    wrapped = nn.parallel.DistributedDataParallel(built)
    mine = slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
    _step(wrapped, x[mine], target[mine])
    save_file({k: v.contiguous() for k, v in built.state_dict().items()}, str(Path(folder) / f"{rank}.safetensors"))
    dist.barrier()
    os._exit(0)  # gloo's threads now and then abort a process that ends in the usual way


def two_processes(name: str, options: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The part's state after one step on two processes with half a batch each, and on one with the whole batch."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(_work, args=(name, options, port, folder), nprocs=2, start_method="spawn")
        apart = [load_file(str(Path(folder) / f"{rank}.safetensors")) for rank in (0, 1)]
    if any(not torch.equal(value, apart[1][key]) for key, value in apart[0].items()):
        raise AssertionError("the two processes hold different parameters after a step")
    built, x, target = _batch(name, options)
    _step(built, x, target)
    return apart[0], {k: v.detach() for k, v in built.state_dict().items()}
