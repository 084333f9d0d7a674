"""Activations that agree: which pairs compute the same at their defaults, and which only look alike going forward.

    python evidence/commands/twins.py        writes evidence/twins.json

Every pair of one shape class is compared on the same rows, output and gradient. "alias": equal at the defaults and at two
perturbed settings; "init": at the defaults only; "forward": equal outputs with different backwards. `declared` says what
the parts declare of one another; identities hold at settings that their parts name, and are checked by the contract.
"""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import torch

from netwright.activations._contract_identities import trace, twins
from netwright.activations._contract_settings import module
from netwright.core import catalogue
from netwright.core.writing import write_whole

OUT = Path(__file__).parents[1] / "twins.json"


def main() -> None:
    parts = catalogue.parts("activation")
    found = {(a.id, b.id): how for a, b, how in twins(parts)}  # type: ignore[arg-type]
    traces = {part.id: trace(module(part, 4)) for part in parts}  # type: ignore[arg-type]
    for a, b in combinations(parts, 2):
        (ours, _), (theirs, _) = traces[a.id], traces[b.id]
        alike = ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-9, atol=1e-10)
        if alike and a.tags.shape == b.tags.shape:
            found.setdefault((a.id, b.id), "forward")
    pairs = [{"parts": list(pair), "agree": how} for pair, how in sorted(found.items())]
    identities = [
        {"part": part.id, "options": dict(i.options), "other": i.other, "other_options": dict(i.other_options), "note": i.note}
        for part in parts
        for i in part.identities
    ]
    document = {"schema": 1, "compared": len(parts), "pairs": pairs, "declared identities": identities}
    write_whole(OUT, json.dumps(document, indent=1) + "\n")
    print(f"{len(parts)} activations, {len(pairs)} pairs that agree, {len(identities)} declared identities")


if __name__ == "__main__":
    main()
