"""Each check of losses fails on a toy that is broken in its way, and passes on one that isn't."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from netwright.contract import apply, checks
from netwright.core.part import Option, Paper
from netwright.losses import Tags, loss
from netwright.losses._kind import IGNORED
from netwright.tensor.terms import Term, by_example

CHECKS = {check.name: check for check in checks("loss")}


def toy(out, y, *, power, ignore_index):
    """A softmax likelihood, to a power of the temperature."""
    counts = y != ignore_index
    z = torch.where(counts[..., None], out.float() if out.dtype in (torch.float16, torch.bfloat16) else out, 0)
    each = -torch.log_softmax(power * z, -1).gather(-1, torch.where(counts, y, 0)[..., None])[..., 0]
    return (by_example(each, counts),)


def reference(out, y, *, power, ignore_index):
    rows = []
    for z, label in zip(out, y, strict=True):
        top = max(z)
        value = math.log(sum(math.exp(power * (v - top)) for v in z)) - power * (z[label if label >= 0 else 0] - top)
        rows.append((value, 1.0) if label != ignore_index else (0.0, 0.0))
    return [rows]


def mean(out, y):
    return torch.nn.functional.cross_entropy(out.flatten(0, -2), y.flatten())


SOUND = loss(
    toy,
    reference=reference,
    mean=mean,
    paper=Paper(title="A toy", authors="Nobody", year=2020),
    summary="a toy",
    tags=Tags(shift=True, proper=True, convex=True),
    options=(Option("power", 1.0, bounds=(0.0, 10.0)), IGNORED),
    values=(([[0.0, 0.0]], [1], math.log(2)),),
)


def broken(name: str, part) -> str:
    """What the check says of a broken loss, after making sure that it lets the sound one pass."""
    whole = apply(SOUND, CHECKS[name])
    assert whole.ok and not whole.skipped_reason, whole
    result = apply(part, CHECKS[name])
    assert not result.ok, f"{name} lets it pass"
    return result.message


def but(change, **more):
    """The toy, its terms changed."""
    return replace(SOUND, subject=lambda out, y, **options: change(toy(out, y, **options)[0], out, y), **more)


def test_a_sound_loss_passes_all_checks() -> None:
    results = [apply(SOUND, check) for check in CHECKS.values()]
    assert not [str(r) for r in results if not r.ok] and sum(bool(r.skipped_reason) for r in results) <= 2


def test_reference_and_known() -> None:
    assert "values" in broken("reference", but(lambda t, out, y: (Term(t.values * 1.0001, t.weights),)))
    assert "weights" in broken("reference", but(lambda t, out, y: (Term(t.values, 2 * t.weights),)))
    assert "number of terms" in broken("reference", but(lambda t, out, y: (t, t)))
    assert "the loss" in broken("known", replace(SOUND, values=(([[0.0, 0.0]], [1], 0.7),)))


def test_shapes() -> None:
    assert "(B,)" in broken("shapes", but(lambda t, out, y: (Term(t.values.mean(), t.weights),)))
    assert "positions" in broken("shapes", but(lambda t, out, y: (Term(t.values, (t.weights > 0).to(out.dtype)),)))


def test_ignored() -> None:
    def leaks(out, y, *, power, ignore_index):
        term = toy(out, torch.where(y == ignore_index, 0, y), power=power, ignore_index=-1)[0]
        return (Term(term.values, (y != ignore_index).to(out.dtype)),)

    def counts_all(out, y, *, power, ignore_index):
        term = toy(out, y, power=power, ignore_index=ignore_index)[0]
        return (Term(term.values, torch.ones_like(term.values)),)

    assert "gradient" in broken("ignored", replace(SOUND, subject=leaks))
    assert "ignored rows move" in broken("ignored", replace(SOUND, subject=counts_all))


def test_options_matter() -> None:
    deaf = replace(SOUND, subject=lambda out, y, *, power, ignore_index: toy(out, y, power=1.0, ignore_index=ignore_index))
    assert "power" in broken("options_matter", deaf)


def test_gradient() -> None:
    def partly(t, out, y):
        return (Term(torch.where(t.values > 1, t.values.detach(), t.values), t.weights),)

    assert "no gradient" in broken("gradient", but(partly))
    assert "isn't the slope" in broken("gradient", but(lambda t, out, y: (Term(2 * t.values - t.values.detach(), t.weights),)))
    assert "NaN" in broken("gradient", but(lambda t, out, y: (Term(t.values.nan_to_num(), t.weights),)))


def test_declared_invariances_hold_and_others_fail() -> None:
    assert "shift" in broken("shift", replace(SOUND, tags=replace(SOUND.tags, shift=False)))
    assert "shift" in broken("shift", but(lambda t, out, y: (Term(t.values + 0.01 * out.sum(-1), t.weights),)))
    assert "scale" in broken("scale", replace(SOUND, tags=replace(SOUND.tags, scale=True)))
    assert "convex" in broken("convex", replace(SOUND, tags=replace(SOUND.tags, convex=False)))
    assert "convex" in broken("convex", but(lambda t, out, y: (Term(t.values.sqrt(), t.weights),)))


def test_least_and_proper() -> None:
    assert "perfect prediction" in broken("least", but(lambda t, out, y: (Term(t.values + 0.1, t.weights),)))
    assert "better than" in broken("least", but(lambda t, out, y: (Term(t.values * (2 - t.values), t.weights),)))
    linear = but(lambda t, out, y: (Term(-out.gather(-1, y[..., None])[..., 0], t.weights),))
    assert "no minimum" in broken("proper", linear)


def test_pieces_and_the_faster_mean() -> None:
    centred = but(lambda t, out, y: (Term(t.values - 0.1 * t.values.max(), t.weights),))
    assert "pieces" in broken("pieces", centred) or "depends on others" in broken("pieces", centred)
    assert "mean" in broken("whole_mean", replace(SOUND, mean=lambda out, y: out.square().mean()))


def test_copies_half_and_module() -> None:
    def looks(out, y, **options):
        return toy(out if out.sum() > 0 else 2 * out, y, **options)

    def narrow(out, y, **options):
        term = toy(out.double() if out.dtype in (torch.float16, torch.bfloat16) else out, y, **options)[0]
        return (Term(term.values.to(out.dtype), term.weights.to(out.dtype)),)

    broken("copies", replace(SOUND, subject=looks))
    assert "float16" in broken("half", replace(SOUND, subject=narrow))
