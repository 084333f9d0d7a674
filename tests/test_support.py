"""What works with what: the checks of exporters and the double backward can fail, and the table says what is on record."""

from __future__ import annotations

import math
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
import torch
from torch import Tensor

from netwright.activations import ActivationPart, Tags, activation
from netwright.activations import _contract_support as exporters
from netwright.activations._contract_support import CHECKS
from netwright.contract import apply
from netwright.core import catalogue
from netwright.core.contract import Result
from netwright.core.part import Learn, Paper
from netwright.show import pages

KNOWN = {check.name: check for check in CHECKS}
PARTS: list[Any] = catalogue.parts("activation")


def toy(fn: Callable[..., Tensor], **changes: Any) -> ActivationPart:
    declared: dict[str, Any] = dict(
        cls="Toy",
        name="toy-support",
        summary="A toy.",
        reference=lambda x: x,
        formula="x",
        tags=Tags(smooth=True),
        paper=Paper(title="Toys", authors="A. Toy", year=2000),
    )
    return activation(fn, **(declared | changes))


def ripple(x: Tensor, a: Tensor) -> Tensor:
    return x + a * torch.sin(x)


def centred(x: Tensor, *, dim: int) -> Tensor:
    return torch.exp(x - x.amax(dim, keepdim=True))


def branching(x: Tensor) -> Tensor:
    return x.sin() if float(x.sum()) > 0 else x.cos()


class Once(torch.autograd.Function):
    """The sine, with a backward that can't be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] * x.detach().cos()


def once(x: Tensor) -> Tensor:
    return Once.apply(x)


def no_operator(x: Tensor) -> Tensor:
    return torch.special.bessel_j0(x)


RIPPLE = toy(ripple, learn=(Learn("a", 0.5),))


def made(part: ActivationPart, name: str) -> Result:
    return apply(part, KNOWN[name])


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("part", [RIPPLE, toy(centred, tags=Tags(shape="rowwise"))], ids=["learning", "rowwise"])
def test_a_sound_part_passes(part: ActivationPart, name: str) -> None:
    result = made(part, name)
    assert result.ok, str(result)
    if name == "onnx" and "not installed" in result.skipped_reason:
        pytest.skip(result.skipped_reason)
    assert not result.skipped_reason


def test_what_exporters_cannot_take_is_found() -> None:
    assert not made(toy(branching), "exports").ok
    assert not made(toy(branching), "onnx").ok or "not installed" in made(toy(branching), "onnx").skipped_reason


def test_an_operator_onnx_lacks_is_declared_and_the_declaration_verified() -> None:
    result = made(toy(no_operator), "onnx")
    if "not installed" in result.skipped_reason:
        pytest.skip(result.skipped_reason)
    assert not result.ok
    reason = {"onnx": "ONNX has no Bessel functions"}
    declared = made(toy(no_operator, tags=Tags(smooth=True, reasons=reason)), "onnx")
    assert declared.ok and declared.skipped_reason.startswith("declared: ")
    needless = made(toy(torch.sin, tags=Tags(smooth=True, reasons=reason)), "onnx")
    assert not needless.ok and "remove it" in needless.message


def test_what_onnx_gives_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    honest = torch.onnx.export

    def other(module: Any, *args: Any, **keywords: Any) -> Any:
        return honest(torch.nn.Tanh(), *args, **keywords)

    monkeypatch.setattr(torch.onnx, "export", other)
    result = made(toy(torch.sin), "onnx")
    assert not result.ok and "onnxruntime" in result.message


def test_onnx_is_skipped_with_the_reason_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporters, "ONNX", ("no_such_package",))
    assert made(RIPPLE, "onnx").skipped_reason == "no_such_package is not installed"


def test_a_backward_that_cannot_be_differentiated_is_found() -> None:
    result = made(toy(once), "double_backward")
    assert not result.ok, str(result)
    assert "jumps" in made(toy(torch.relu, tags=Tags(kinks=(0.0,))), "double_backward").skipped_reason
    own = Tags(smooth=True, exact_gradient=False)
    assert "declared" in made(toy(once, tags=own), "double_backward").skipped_reason


# The table ------------------------------------------------------------------------------------------------------------


def entry(**checks: str) -> dict[str, Any]:
    return {"fingerprint": "0" * 16, "passed": False, "checks": checks}


def test_a_cell_says_what_is_on_record() -> None:
    cells = pages.supported(
        RIPPLE,
        entry(
            autocast="pass",
            compiled="fail: it broke",
            onnx="skip: declared: no operator",
            vmap="skip: says nothing",
            exports="skip: not in the sample",
            numbers="pass",
        ),
    )
    assert cells["autocast"] == ("yes", "") and cells["torch.compile, full graph"] == ("no", "it broke")
    assert cells["ONNX"] == ("exception", "no operator") and cells["vmap"] == ("not made", "says nothing")
    assert cells["torch.export"] == cells["fused=True"] == ("not measured", "")
    assert cells["float16"] == cells["bfloat16"] == ("yes", "")
    assert {state for state, _ in cells.values()} == set(pages.STATES)


def test_a_dtype_without_a_kernel_is_an_exception() -> None:
    part = toy(torch.sin, tags=Tags(smooth=True, no_dtypes=("float16",)))
    assert pages.supported(part, entry(numbers="pass"))["float16"][0] == "exception"
    assert pages.supported(part, entry(numbers="pass"))["bfloat16"][0] == "yes"


@pytest.mark.every_part
def test_every_column_has_a_check() -> None:
    from netwright.contract import checks

    for part in catalogue.parts():
        facts = pages.facts_of(part)
        assert set(facts.support.values()) <= {check.name for check in checks(part.kind)}, part.id
        assert set(facts.refused) <= set(facts.support), part.id


def test_without_evidence_nothing_is_measured() -> None:
    assert {state for state, _ in pages.supported(RIPPLE, {}).values()} == {"not measured"}


class Table(HTMLParser):
    """The links and ids of a page, and the text of its rows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        self.links += [values.get("href") or ""] if tag == "a" else []
        self.ids |= {values.get("id") or ""}


HOSTILE = "</style></title><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\"'&"


@pytest.mark.every_part
def test_the_page_has_a_row_a_part_and_every_reason() -> None:
    text = pages.support(PARTS, pages.Evidence({part.id: entry(onnx=f"skip: declared: {HOSTILE}") for part in PARTS}))
    page = Table(text)
    assert {f"{part.id}.html" for part in PARTS} <= set(page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} == {"reason-1"} <= page.ids
    assert not page.tags & {"script", "img"} and "alert(1)" in text and "\x1b" not in text
    assert text.count("(checked in an earlier form)") == len(PARTS)
    assert text.count("reason 1") == len(PARTS) and text.count("&lt;script&gt;alert(1)") == 1
    assert math.isclose(text.count('class="state not-measured"'), (len(pages.facts_of(RIPPLE).support) - 1) * len(PARTS) + 1)


@pytest.mark.every_part
def test_other_kinds_have_no_rows() -> None:
    others = [part for part in catalogue.parts() if not pages.facts_of(part).support]
    text = pages.support(others, pages.Evidence())
    assert others and not any(part.id in text for part in others)
