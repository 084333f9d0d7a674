"""The contract, over a sample of parts of every kind: a new part is covered by being there. make check-all makes the rest."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
import torch
from sample import sampled

from netwright.activations._contract_identities import twins
from netwright.contract import apply, checks, every, in_sample
from netwright.core import catalogue
from netwright.core.kind import BENCH
from netwright.core.part import Part

KINDS = sorted(catalogue.kinds())
#: They run whole experiments, some of them studies: `make check-all` does, and test_experiments tries them on a toy.
LONG = catalogue.kinds()[catalogue.kind_at(BENCH)].checks()
CASES = [
    (part, check)
    for part in sampled(catalogue.parts())
    for check in checks(part.kind)
    if in_sample(part, check) and check not in LONG
]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(("part", "check"), CASES, ids=[f"{part.id}-{check.name}" for part, check in CASES])
def test_contract(part: Part, check) -> None:
    result = apply(part, check)
    assert result.ok, result.message
    if result.skipped_reason:
        pytest.skip(result.skipped_reason)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_checks_of_its_own(kind: str) -> None:
    common = {check.name for check in every.CHECKS}
    assert {check.name for check in checks(kind)} > common


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.every_part
def test_declared_exceptions_name_checks(kind: str) -> None:
    known = {check.name for check in checks(kind)}
    for part in catalogue.parts(kind):
        assert set(getattr(part.tags, "reasons", None) or ()) <= known, part.id


@pytest.mark.every_part
def test_every_activation_builds_on_meta_in_a_fresh_process() -> None:
    """Initial values that are computed must not come from the device a net is being built on."""
    program = (
        "import torch; from netwright import catalogue\n"
        "with torch.device('meta'):\n"
        "    for part in catalogue.parts('activation'): part.build(channels=4, channel_dim=-1)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.every_part
def test_parts_that_agree_say_so() -> None:
    """Equal at the default and two perturbed settings: alias_of. Equal at the default only: equals_at_init."""
    for a, b, found in twins(catalogue.parts("activation")):  # type: ignore[arg-type]
        if found == "alias":
            assert b.id == a.alias_of or a.id == b.alias_of, f"{a.id} and {b.id} are one function; declare alias_of"
        else:
            declared = b.id in a.equals_at_init or a.id in b.equals_at_init
            assert declared, f"{a.id} and {b.id} agree at their defaults; declare equals_at_init"


@pytest.mark.parametrize("part", sampled(catalogue.parts("layer")), ids=lambda p: p.id)
def test_pickle_finds_the_class_of_every_layer_and_norm(part) -> None:
    built = part.build(**part.toy).eval()
    x = torch.randn(4, *part.row())
    assert torch.equal(pickle.loads(pickle.dumps(built))(x), built(x))
