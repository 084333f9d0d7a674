"""What an arm costs: counted on the meta device, timed and weighed with one copy, alone, in the loop engine."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

from netwright.bench.entrant import Entrant
from netwright.bench.records import Cost
from netwright.core.guard import foreign
from netwright.engine.loop import Loop, cast
from netwright.engine.meter import peak_bytes
from netwright.tensor.streams import generator, global_draws

ROUNDS = 21
SAMPLE = 0.004  # seconds one sample lasts at least
PATIENCE = 6.0  # seconds of timing an arm, at most, once MINIMUM rounds are there
MINIMUM = 3


class Stepper:
    """One entrant ready to take training steps on one fixed batch."""

    def __init__(self, entrant: Entrant, seed: int = 0) -> None:
        setting = entrant.setting(seed, {"lr": entrant.rates[0]})
        rule, data = entrant.build(seed), entrant.data(seed)
        rows = data.train[: entrant.task.batch]
        self.rule, self.x = cast(rule, data.x[rows], setting)
        self.y = data.y[rows]
        self.draws = self.rule.draw(self.x, self.y, generator(seed, "probe"))
        self.loop = Loop(self.rule, setting)
        self.cuda = entrant.device.startswith("cuda")

    def step(self) -> Tensor:
        """One training step, and its loss; waits for the device."""
        loss = self.loop.step(self.x, self.y, self.draws)
        if self.cuda:
            torch.cuda.synchronize()
        return loss

    @torch.no_grad()
    def infer(self) -> None:
        """One prediction of the batch; waits for the device."""
        self.rule.eval()
        self.rule(self.x)
        if self.cuda:
            torch.cuda.synchronize()

    def clock(self) -> float:
        """Process time on one CPU thread (other processes don't count), wall time on a device."""
        return time.perf_counter() if self.cuda else time.process_time()


def first_step(entrant: Entrant) -> tuple[Stepper, Tensor]:
    """One ready to step further, and the loss of its first step, for which all is drawn anew from one seed."""
    with global_draws(0, "forward"):
        stepper = Stepper(entrant)
        return stepper, stepper.step()


def seconds(stepper: Stepper, work: Callable[[], object], n: int) -> float:
    """Mean time of n calls."""
    start = stepper.clock()
    for _ in range(n):
        work()
    return (stepper.clock() - start) / n


def inner(stepper: Stepper, work: Callable[[], object]) -> int:
    """Calls a sample, from the fastest of five single calls (one call alone misjudges cold caches)."""
    work()
    once = min(seconds(stepper, work, 1) for _ in range(5))
    return max(1, round(SAMPLE / max(once, 1e-7)))


def interleaved(steppers: Sequence[Stepper], rounds: int = ROUNDS) -> list[list[float]]:
    """Step times, one list an arm, taken round robin, so that what slows the machine slows all arms.

    The list of an arm that raises is empty.
    """
    sound = list(range(len(steppers)))
    counts, rows = {}, [[0.0] * 0 for _ in steppers]
    for j in range(len(steppers)):
        with _only_lost(sound, j):
            counts[j] = inner(steppers[j], steppers[j].step)
    n = max(1, statistics.median_low(counts.values())) if counts else 1
    begun = time.perf_counter()
    for i in range(rounds):
        for k in range(len(steppers)):
            j = (i + k) % len(steppers)
            if j in sound:
                with _only_lost(sound, j):
                    rows[j].append(seconds(steppers[j], steppers[j].step, n))
        if i + 1 >= MINIMUM and time.perf_counter() - begun > PATIENCE * len(steppers):
            break
    return [row if j in sound else [] for j, row in enumerate(rows)]


@contextmanager
def _only_lost(sound: list[int], j: int) -> Iterator[None]:
    """What a part raises costs it its own figures only; its runs tell what it was."""
    try:
        with foreign("the probe of costs"):
            yield
    except Exception:
        sound.remove(j)


def median_step_ratio(a: Entrant, b: Entrant) -> tuple[float, float]:
    """Median over rounds of step time a / step time b, and half the distance of its quartiles."""
    with a.computing(), global_draws(0, "forward"):
        times = interleaved([Stepper(a), Stepper(b)])
    ratios = sorted(x / y for x, y in zip(*times, strict=True))
    quartiles = statistics.quantiles(ratios, n=4)
    return statistics.median(ratios), (quartiles[2] - quartiles[0]) / 2


def probe(
    entrants: Sequence[Entrant], sound: Collection[str], tell: Callable[[str], None] = lambda text: None
) -> tuple[list[Cost], float | None]:
    """The cost of every entrant, and the A/A ratio (the baseline timed against itself). Unknown figures are None, never 0.

    sound: those that can be run here; the others have hung, died or run out of memory, and have no cost.
    """
    first = entrants[0]
    with first.computing(), global_draws(0, "forward"):
        steppers: dict[str, Stepper] = {}
        repeats: dict[str, bool] = {}
        for entrant in entrants:
            if entrant.name not in sound:
                continue
            try:
                with foreign(entrant.name):
                    once = first_step(entrant)[1]
                    stepper, again = first_step(entrant)
            except Exception as error:  # a part that can't take a step has no cost; its runs say why
                tell(f"{entrant.name}: no cost measured ({type(error).__name__})")
                continue
            steppers[entrant.name] = stepper
            repeats[entrant.name] = torch.equal(once.nan_to_num(), again.nan_to_num())
        if not steppers:
            return [Cost(entrant.name, widths=entrant.widths) for entrant in entrants], None
        twin = [Stepper(first)] if first.name in steppers else []
        times = interleaved([*steppers.values(), *twin])
        base = times[0] if twin else []
        ratios = [x / y for x, y in zip(times[-1], base, strict=False)] if twin else []
        aa = statistics.median(ratios) if ratios else None
        timed = dict(zip(steppers, times, strict=False))
        costs = []
        for entrant in entrants:
            costs.append(Cost(entrant.name, widths=entrant.widths))
            with suppress(Exception), foreign(entrant.name):  # what only a prediction raises
                costs[-1] = _cost(entrant, steppers.get(entrant.name), timed.get(entrant.name), base)
            costs[-1] = dataclasses.replace(costs[-1], repeats=repeats.get(entrant.name))
        return costs, aa


def _cost(entrant: Entrant, stepper: Stepper | None, times: list[float] | None, base: list[float]) -> Cost:
    if stepper is None or not times:
        return Cost(entrant.name, widths=entrant.widths)
    training, inference = entrant.flops or (None, None)
    q = statistics.quantiles(times, n=4) if len(times) > 1 else [times[0]] * 3
    n = inner(stepper, stepper.infer)
    infer = statistics.median(seconds(stepper, stepper.infer, n) for _ in range(5))
    return Cost(
        entrant.name,
        params=sum(p.numel() for p in stepper.rule.parameters() if p.requires_grad),
        buffers=sum(b.numel() for b in stepper.rule.buffers()),
        flops_train=training,
        flops_infer=inference,
        step_time=statistics.median(times),
        step_quartiles=(q[0], q[2]),
        step_ratio=statistics.median(x / y for x, y in zip(times, base, strict=True)) if base else None,
        infer_time=infer,
        peak_memory=peak_memory(stepper),
        widths=entrant.widths,
    )


def peak_memory(stepper: Stepper) -> int | None:
    """Peak bytes of one step above what lives before it: profiler allocation events on a CPU, the allocator on CUDA."""
    stepper.step()  # the optimizer state is there before the measured step
    stepper.loop.rule.zero_grad(set_to_none=True)
    if stepper.cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        stepper.step()
        return torch.cuda.max_memory_allocated() - before
    return peak_bytes(stepper.step)
