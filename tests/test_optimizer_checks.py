"""Each check of optimizers and schedules fails on a toy that is broken in its way, and passes on one that isn't."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from netwright.contract import apply, checks
from netwright.core.part import Option, Paper
from netwright.optimizers import Tags, Twin, optimizer, schedule

PAPER = Paper(title="A toy", authors="Nobody", year=2020)
CHECKS = {check.name: check for check in checks("optimizer")}


def start(p):
    return {"v": torch.zeros_like(p)}


def heavy(g, state, p, t, *, lr, weight_decay, mass):
    v = mass * state["v"] + g + weight_decay * p
    return p - lr * v, {"v": v}


def reference(p, gradient, steps, *, lr, weight_decay, mass):
    theta, v = p.copy(), 0 * p
    for _ in range(steps):
        v = gradient(theta) + weight_decay * theta + v * mass
        theta = theta - lr * v
        yield theta


MASS = (Option("mass", 0.9, bounds=(-1e-12, 1.0)),)
SOUND = optimizer(
    heavy,
    start=start,
    reference=reference,
    paper=PAPER,
    summary="a toy",
    options=MASS,
    tags=Tags(published=0.01, scaling="linear"),
    twin=Twin(torch.optim.SGD, lambda options: {"momentum": options["mass"]}),
)


def rise(step, steps, *, share):
    return min(1.0, step / (share * steps))


def rise_again(step, steps, *, share):
    return 1.0 if step > share * steps else step / steps / share


RISING = schedule(
    rise,
    reference=rise_again,
    paper=PAPER,
    summary="a toy",
    options=(Option("share", 0.25, bounds=(0.0, 1.0)),),
    values={(1, 8): 0.5, (8, 8): 1.0},
    joints=lambda share: (share,),
)


def sound(name: str, part=SOUND):
    return apply(part, CHECKS[name])


def broken(name: str, part, whole=SOUND) -> str:
    """What the check says of a broken part, after making sure that it lets the sound one pass."""
    assert sound(name, whole).ok and not sound(name, whole).skipped_reason, str(sound(name, whole))
    result = apply(part, CHECKS[name])
    assert not result.ok, f"{name} lets it pass"
    return result.message


def steps(step, **more):
    return replace(SOUND, subject=step, **more)


@pytest.mark.parametrize("part", [SOUND, RISING], ids=["steps", "schedule"])
def test_a_sound_part_passes_all_checks(part) -> None:
    results = [sound(name, part) for name in CHECKS]
    assert not [str(r) for r in results if not r.ok]
    assert sum(not r.skipped_reason for r in results) >= 6


def test_second_writing() -> None:
    def late(p, gradient, steps, **options):
        for theta in reference(p, gradient, steps, **options):
            yield theta * (1 + 1e-6)

    assert "the values" in broken("second_writing", replace(SOUND, reference=late))


def test_twin() -> None:
    ignores = Twin(torch.optim.SGD, lambda options: {"momentum": 0.9})
    assert "SGD" in broken("twin", replace(SOUND, twin=ignores))


def test_scope() -> None:
    def centred(g, state, p, t, **options):
        return heavy(g - g.mean(), state, p, t, **options)

    def by_place(g, state, p, t, **options):
        return heavy(g * torch.arange(1.0, 1 + len(g), dtype=g.dtype), state, p, t, **options)

    assert "the gradient of another" in broken("scope", steps(centred))
    assert "every place" in broken("scope", steps(by_place))
    for kind, words in (("net", "moves another"), ("tensor", "whole matrix")):
        assert words in broken("scope", replace(SOUND, tags=replace(SOUND.tags, scope=kind), twin=None))


def test_stacked() -> None:
    def branches(g, state, p, t, **options):
        return heavy(g if g.sum() > 0 else 0.5 * g, state, p, t, **options)

    broken("stacked", steps(branches))


def test_pure() -> None:
    def in_place(g, state, p, t, *, lr, weight_decay, mass):
        return p - lr * state["v"].mul_(mass).add_(g), state

    def renamed(g, state, p, t, **options):
        new, state = heavy(g, {"v": state["v"]}, p, t, **options)
        return new, {**state, "more": g}

    def single(g, state, p, t, **options):
        new, state = heavy(g, state, p, t, **options)
        return new, {"v": state["v"].float()}

    assert "in place" in broken("pure", steps(in_place))
    assert "other names" in broken("pure", steps(renamed))
    assert "torch.float32" in broken("pure", steps(single))


def test_decay() -> None:
    assert "without a gradient" in broken("decay", replace(SOUND, tags=replace(SOUND.tags, decay="decoupled")))

    def apart(g, state, p, t, *, lr, weight_decay, mass):
        return heavy(g, state, p * (1 - lr * weight_decay), t, lr=lr, weight_decay=0.0, mass=mass)

    assert "part of the gradient" in broken("decay", steps(apart))


def test_options_matter() -> None:
    idle = (*MASS, Option("idle", 0.5, bounds=(0.0, 1.0)))

    def deaf(g, state, p, t, *, idle, **options):
        return heavy(g, state, p, t, **options)

    assert "idle" in broken("options_matter", steps(deaf, options=idle))


def test_scaling() -> None:
    for said in ("same", ""):
        assert "scaling" in broken("scaling", replace(SOUND, tags=replace(SOUND.tags, scaling=said)))


def test_standing_still() -> None:
    def unit(g, state, p, t, **options):
        return heavy(g / g.norm(), state, p, t, **options)

    def hides(g, state, p, t, **options):
        return heavy(g.nan_to_num(), state, p, t, **options)

    def once(g, state, p, t, *, lr, weight_decay, mass):
        v = state["v"] + 1
        return p - torch.where(v < 2, lr, 0.0) * g, {"v": v}

    assert "moves without a gradient" in broken("standing_still", steps(unit))
    assert "NaN" in broken("standing_still", steps(hides))
    assert "never moves again" in broken("standing_still", steps(once))


def test_minimum_and_trains() -> None:
    def uphill(g, state, p, t, **options):
        return heavy(-g, state, p, t, **options)

    assert "minimum" in broken("minimum", steps(uphill))
    assert "lower the loss" in broken("trains", steps(uphill, twin=None), replace(SOUND, twin=None))


def test_resumed() -> None:
    count = [0]

    def counts(g, state, p, t, **options):
        count[0] += 1
        return heavy(g / count[0], state, p, t, **options)

    assert "elsewhere" in broken("resumed", steps(counts, twin=None), replace(SOUND, twin=None))


# Schedules --------------------------------------------------------------------------------------------------------------


def test_second_schedule_and_known() -> None:
    assert "the factor" in broken("second_schedule", replace(RISING, reference=lambda step, steps, share: step / steps), RISING)
    assert "the factor" in broken("known", replace(RISING, values={(1, 8): 0.25}), RISING)
    assert "names no step" in broken("known", replace(RISING, values={}), RISING)


def test_continuous() -> None:
    def falls(step, steps, *, share):
        return 1.0 if step < share * steps else 0.5

    assert "it jumps" in broken("continuous", replace(RISING, subject=falls), RISING)
    assert "where phases meet" in broken("continuous", replace(RISING, joints=lambda share: (share, 0.8)), RISING)


def test_past_its_end() -> None:
    def ends(step, steps, *, share):
        return rise(step, steps, share=share) if step < steps else math.nan

    assert "is nan" in apply(replace(RISING, subject=ends), CHECKS["second_schedule"]).message
    assert sound("past_its_end", RISING).ok


def test_schedule_options() -> None:
    def deaf(step, steps, *, share):
        return rise(step, steps, share=0.5)

    assert "does nothing" in broken("schedule_options", replace(RISING, subject=deaf), RISING)
