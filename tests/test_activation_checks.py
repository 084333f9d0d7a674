"""Each check of an activation can fail: a toy part that is wrong in one way is caught by the check meant for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
import wrong_stateful
from sample import sampled
from torch import Tensor, nn

from netwright.activations import Activation, ActivationPart, Tags, activation
from netwright.contract import apply, checks, in_sample, run
from netwright.core.contract import Check, Result, Skip, Wrong, expect
from netwright.core.errors import BadInput, UnknownName
from netwright.core.part import Claim, Example, Identity, Learn, Option, Paper
from netwright.tensor.fused import uncompiled

PAPER = Paper(title="Toys", authors="A. Toy", year=2000)
KNOWN = {check.name: check for check in checks("activation")}


def bend(x: Tensor, slope: Tensor, *, gain: float) -> Tensor:
    return gain * torch.where(x > 0, x, slope * x)


def reference(x: float, slope: float, gain: float) -> float:
    return gain * (x if x > 0 else slope * x)


def toy(**changes: Any) -> ActivationPart:
    """A leaky rectifier with a learnt slope and a gain: passes every check, until something is changed."""
    declared: dict[str, Any] = dict(
        cls="Bend",
        reference=reference,
        paper=PAPER,
        name="toy-bend",
        summary="A toy.",
        formula=r"g \max(s x, x)",
        learn=(Learn("slope", 0.25, bounds=(0.0, 0.5)),),
        options=(Option("gain", 1.0, bounds=(0.0, math.inf)),),
        tags=Tags(monotone=True, kinks=(0.0,), always=("monotone",)),
        values={-2.0: -0.5, 2.0: 2.0},
        limits=(-math.inf, math.inf),
    )
    fn = changes.pop("fn", bend)
    return activation(fn, **(declared | changes))


def plain(fn: Any, by: Any, **changes: Any) -> ActivationPart:
    """A toy that learns nothing."""
    return toy(**(dict(fn=fn, reference=by, learn=(), options=(), tags=Tags(), values=None) | changes))


def made(part: ActivationPart, name: str) -> Result:
    return apply(part, KNOWN[name])


def tanh_reference(x: float) -> float:
    return math.tanh(x)


def softmax(x: Tensor, *, dim: int) -> Tensor:
    return torch.softmax(x, dim)


def softmax_reference(x: list[float]) -> list[float]:
    total = sum(math.exp(v) for v in x)
    return [math.exp(v) / total for v in x]


SOFTMAX = plain(softmax, softmax_reference, tags=Tags(shape="rowwise", delicate=True), limits=None)
TANH = plain(torch.tanh, tanh_reference, tags=Tags(smooth=True, monotone=True, odd=True), limits=(-1.0, 1.0))


SOUND = {"learning": toy(), "rowwise": SOFTMAX, "smooth": TANH} | wrong_stateful.SOUND


@pytest.mark.parametrize("part", SOUND.values(), ids=SOUND)
def test_a_sound_part_passes(part: ActivationPart) -> None:
    results = run(part, only=tuple(name for name, check in KNOWN.items() if not check.sampled))
    assert [str(r) for r in results if not r.ok] == []
    assert sum(not r.skipped_reason for r in results) > 10


class Forgetful(Activation):
    """The base of hand-written classes below, with the toy's options as arguments."""

    part = toy()

    def __init__(self, channels=None, channel_dim=1, fused=False, **options: Any) -> None:
        nn.Module.__init__(self)
        self._setup(channels, channel_dim, fused, options)


class Drawing(Forgetful):
    def _setup(self, channels: Any, channel_dim: int, fused: bool, given: Mapping[str, Any]) -> None:
        super()._setup(channels, channel_dim, fused, given)
        torch.rand(1)


class Unfilled(Forgetful):
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        if generator is None:
            super().reset_parameters()


class Promoting(Forgetful):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).float()


class Integer(Forgetful):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.is_floating_point() else x.float())


class Careless(Forgetful):
    def _setup(self, channels: Any, channel_dim: int, fused: bool, given: Mapping[str, Any]) -> None:
        super()._setup(channels, channel_dim, fused, {k: v for k, v in given.items() if k in ("gain", "slope", "per")})


class Unbounded(Forgetful):
    def learned(self, x: Tensor) -> list[Tensor]:
        return [self.slope.reshape(self.slope.shape if self.per == "channel" else ())]


class Shy(Forgetful):
    def _setup(self, channels: Any, channel_dim: int, fused: bool, given: Mapping[str, Any]) -> None:
        super()._setup(channels, channel_dim, fused, given)
        self.no_decay = frozenset()


class Stateful(Forgetful):
    def forward(self, x: Tensor) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(x) * self.calls


class Keeping(Forgetful):
    """Keeps another tensor for the backward."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.exp().log())


class Uncopied(Forgetful):
    def __deepcopy__(self, memo: dict[int, Any]) -> Uncopied:
        return self


def wrong_gradient(x: Tensor) -> Tensor:
    return x.tanh().detach() + 0.5 * (x - x.detach())


def nan_gradient(x: Tensor) -> Tensor:
    return torch.where(x > 0, x.sqrt(), 0.0)


def nan_reference(x: float) -> float:
    return math.sqrt(x) if x > 0 else 0.0


def rough_tanh(x: Tensor) -> Tensor:
    e = torch.exp(2 * x)
    return (e - 1) / (e + 1)


def mixing(x: Tensor) -> Tensor:
    return x.tanh() + 0 * x.sum() if x.dim() < 2 else (x + 1e-3 * x.mean(-1, keepdim=True)).tanh()


def across_rows(x: Tensor) -> Tensor:
    return (x + 1e-3 * x.mean(0, keepdim=True)).tanh() if x.dim() else x.tanh()


def in_place(x: Tensor) -> Tensor:
    return x.detach().mul_(2).div_(2.5).tanh()


def under_autocast(x: Tensor) -> Tensor:
    return x.tanh() * (1.5 if torch.is_autocast_enabled("cpu") else 1.0)


def no_vmap(x: Tensor) -> Tensor:
    return x.tanh() if float(x.detach().flatten()[:1].sum()) < 1e9 else x


WRONG: list[tuple[str, str, ActivationPart]] = [
    ("reference", "another slope", toy(reference=lambda x, slope, gain: gain * max(x, 0.0))),
    ("reference", "an option without effect", toy(reference=lambda x, slope, gain: x if x > 0 else slope * x)),
    ("reference", "a row", replace(SOFTMAX, reference=lambda x: [1 / len(x)] * len(x))),
    ("numbers", "cancels and overflows", plain(rough_tanh, tanh_reference)),
    ("numbers", "a row", replace(SOFTMAX, reference=lambda x: [1.05 * v for v in SOFTMAX.reference(x)])),
    ("infinities", "nan at infinity", plain(lambda x: x * torch.sigmoid(x), lambda x: max(x, 0.0))),
    ("limits", "another limit", replace(TANH, limits=(-1.0, 2.0))),
    ("limits", "no limit", replace(TANH, limits=(-math.inf, 1.0))),
    ("limits", "not declared", replace(TANH, limits=None)),
    ("values", "another value", toy(values={-2.0: -0.6})),
    ("values", "another example", replace(SOFTMAX, examples=(Example([0.0, 0.0], [0.4, 0.6]),))),
    ("gradients", "0 times infinity", plain(nan_gradient, nan_reference)),
    ("gradcheck", "not the derivative", plain(wrong_gradient, tanh_reference)),
    ("gradcheck", "an exact gradient declared inexact", replace(TANH, tags=replace(TANH.tags, exact_gradient=False))),
    ("smooth", "a kink declared smooth", toy(tags=Tags(smooth=True, monotone=True))),
    ("smooth", "a kink not declared", toy(tags=Tags(monotone=True))),
    ("smooth", "a kink where there is none", toy(tags=Tags(monotone=True, kinks=(0.0, 1.0)))),
    ("smooth", "smooth and not declared", replace(TANH, tags=Tags(monotone=True, odd=True))),
    ("monotone", "declared and isn't", plain(torch.cos, math.cos, tags=Tags(monotone=True))),
    ("monotone", "is and doesn't declare it", replace(TANH, tags=Tags(smooth=True, odd=True))),
    (
        "monotone",
        "not for all parameters",
        toy(learn=(Learn("slope", 0.05),), tags=Tags(monotone=True, kinks=(0.0,), always=("monotone",))),
    ),
    ("parity", "odd declared", toy(tags=Tags(odd=True, kinks=(0.0,)))),
    ("parity", "even declared", replace(TANH, tags=Tags(smooth=True, even=True))),
    ("parity", "odd and not declared", replace(TANH, tags=Tags(smooth=True, monotone=True))),
    ("scale_invariant", "declared and isn't", replace(SOFTMAX, tags=Tags(shape="rowwise", scale_invariant=True))),
    ("scale_invariant", "is and doesn't declare it", plain(torch.sign, lambda x: float((x > 0) - (x < 0)))),
    ("shape", "entries see each other", plain(mixing, tanh_reference)),
    ("shape", "rows see each other", plain(across_rows, tanh_reference)),
    ("shape", "changes its input", plain(lambda x: x.detach().mul_(2), lambda x: 2 * x)),
    ("shape", "other ratio", replace(TANH, ratio=2.0)),
    ("shape", "remembers its calls", toy(module_class=Stateful)),
    ("dtype", "promotes", toy(module_class=Promoting)),
    ("dtype", "takes integers", toy(module_class=Integer)),
    ("dtype", "a missing kernel that isn't refused", toy(module_class=Integer, tags=Tags(no_dtypes=("float16",)))),
    ("arguments", "unknown options accepted", toy(module_class=Careless)),
    ("learnable", "bounds not kept", toy(module_class=Unbounded)),
    ("learnable", "weight decay", toy(module_class=Shy)),
    ("copies", "not copied", toy(module_class=Uncopied)),
    ("copies", "another class name", replace(toy(), cls="Other", module_class=Forgetful)),
    ("meta", "draws when built", toy(module_class=Drawing)),
    ("meta", "leaves parameters unfilled", toy(module_class=Unfilled)),
    ("vmap", "asks for a value", plain(no_vmap, tanh_reference)),
    ("autocast", "off under autocast", plain(under_autocast, tanh_reference)),
    ("saved_bytes", "keeps more", toy(module_class=Keeping)),
    ("identities", "not equal", toy(name="toy-b", identities=(Identity("PARABOLA"),))),
    ("claims", "does not hold", toy(claims=(Claim("c", "a claim", check=lambda: False),))),
    ("claims", "not a truth value", toy(claims=(Claim("c", "a claim", check=lambda: 1),))),  # type: ignore[arg-type,return-value]
    ("formula", "not TeX", toy(formula=r"\frac{1}{")),
    ("declaration", "no summary", replace(toy(), summary=" ")),
    ("declaration", "a thin reason", replace(TANH, tags=replace(TANH.tags, reasons={"limits": "no"}))),
    ("declaration", "an option twice", toy(options=(Option("gain", 1.0), Option("gain", 2.0)))),
    *wrong_stateful.WRONG,
]


@pytest.mark.parametrize(("name", "how", "part"), WRONG, ids=[f"{name}: {how}" for name, how, _ in WRONG])
def test_a_wrong_part_is_caught(name: str, how: str, part: ActivationPart, monkeypatch: pytest.MonkeyPatch) -> None:
    if part.identities:
        others = {"PARABOLA": plain(torch.square, lambda x: x * x, name="toy-parabola")}
        monkeypatch.setattr("netwright.core.catalogue.get", lambda name, kind=None: others[name])
    result = made(part, name)
    assert not result.ok, f"{how} passes the check {name}"
    assert result.message.startswith(f"{part.id}, check {name}: ")


def test_every_quick_check_is_shown_able_to_fail() -> None:
    assert {name for name, check in KNOWN.items() if not check.sampled} <= {name for name, _, _ in WRONG}


def test_the_message_names_the_smallest_input_and_both_values() -> None:
    part = replace(TANH, reference=lambda x: math.tanh(x) + (0.5 if x > 1 else 0.0))
    message = made(part, "reference").message
    assert part.id in message and "check reference" in message
    assert "input 1.25; got 0.84828" in message and "expected 1.34828" in message


def test_an_exception_has_to_be_declared_and_needed() -> None:
    rough = plain(rough_tanh, tanh_reference, tags=Tags(reasons={"numbers": "written without care"}))
    assert made(rough, "numbers").skipped_reason == "declared: written without care"
    needless = replace(TANH, tags=replace(TANH.tags, reasons={"numbers": "out of habit, no more"}))
    result = made(needless, "numbers")
    assert not result.ok and "remove it" in result.message
    with pytest.raises(UnknownName, match="nubmers"):
        run(replace(TANH, tags=replace(TANH.tags, reasons={"nubmers": "a slip of the pen"})))


def test_aliases_and_equal_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    other = toy(name="toy-other")
    leaky = plain(lambda x: torch.where(x > 0, x, 0.25 * x), lambda x: max(x, 0.25 * x), name="toy-leaky")
    monkeypatch.setattr("netwright.core.catalogue.get", lambda name, kind=None: {"o": other, "l": leaky, "t": TANH}[name])
    assert made(toy(alias_of="o"), "identities").ok
    assert made(toy(equals_at_init=("l",)), "identities").ok
    assert "declare it as alias_of" in made(toy(equals_at_init=("o",)), "identities").message
    assert "declare it as equals_at_init" in made(toy(alias_of="l"), "identities").message
    assert "differs from t" in made(toy(alias_of="t"), "identities").message


def test_an_error_of_the_part_is_a_failure_and_a_skip_is_not() -> None:
    def broken(part: ActivationPart) -> None:
        raise ZeroDivisionError("by zero")

    def skipped(part: ActivationPart) -> None:
        raise Skip("not here")

    assert "raised ZeroDivisionError: by zero" in apply(TANH, Check("broken", broken)).message
    assert apply(TANH, Check("skipped", skipped)) == Result("skipped", True, skipped_reason="not here")


def test_expect_words_what_is_wrong() -> None:
    expect(True, "fine")
    with pytest.raises(Wrong, match="^too small; input 3; got 1; expected 2$"):
        expect(False, "too small", given=3, got=1, wanted=2)


def test_sampled_checks_reach_some_parts_and_not_all() -> None:
    sampled = Check("costly", lambda part: None, needs_compile=True)
    chosen = [in_sample(toy(name=f"toy-{i}"), sampled) for i in range(120)]
    assert 5 < sum(chosen) < 60
    assert all(in_sample(toy(), check) for check in KNOWN.values() if not check.sampled)


def test_only_takes_the_named_checks() -> None:
    assert [r.check for r in run(TANH, only=("shape", "dtype"))] == ["dtype", "shape"]
    with pytest.raises(UnknownName, match="shape"):
        run(TANH, only=("shapes",))


@pytest.mark.parametrize(
    "tags",
    [
        dict(shape="round"),
        dict(always=("smooth",)),
        dict(smooth=True, kinks=(0.0,)),
        dict(smooth=True, always=("kinks",)),
    ],
)
def test_tags_that_contradict_themselves_are_refused(tags: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        Tags(**tags)


@pytest.mark.parametrize("slope", [-0.1, 0.7, math.nan, math.inf])
def test_an_initial_value_has_to_lie_within_its_bounds(slope: float) -> None:
    with pytest.raises(BadInput, match="slope"):
        toy().build(slope=slope)


def test_the_class_pickles_under_its_own_name() -> None:
    import pickle

    from netwright.core import catalogue

    for part in sampled(catalogue.parts("activation")):
        built = part.build(channels=4, channel_dim=-1, fused=True)
        again = pickle.loads(pickle.dumps(built))
        assert type(again) is part.module_type()
        x = torch.linspace(-1, 1, 8).reshape(2, 4)
        with uncompiled():
            assert torch.equal(again.eval()(x), built.eval()(x))
