"""Learning rules side by side: do rules without backpropagation train hidden layers, and do they hold on images?

Bartunov et al., "Assessing the Scalability of Biologically-Motivated Deep Learning Algorithms and Architectures" (2018): many
do well on MNIST; on CIFAR-10 target propagation and feedback alignment are significantly worse than backpropagation. Every
rule of the catalogue that fits trains the same net at its own best rate, beside backpropagation and a net whose hidden
blocks are frozen: whoever is not clearly above that trains no hidden layer.
"""

from __future__ import annotations

import dataclasses

from netwright.core.part import Option, Paper
from netwright.experiments._kind import Control, Question, study, verdict
from netwright.experiments.rules._nets import HOSTS, RATES, VARIANTS, net_of, rules

#: section -> rates each seed tries; 1: the rate of RATES.
TRIALS = {"digits": 2, "digits-conv": 1, "small": 4, "full": 1, "mnist-conv": 3, "cifar10-conv": 3, "cora": 4}
LEADERS = ("guidance", "dual-propagation", "mono-forward", "noprop", "deeply-supervised", "sign-symmetry")
BIOLOGICAL = ("feedback-alignment", "dfa", "sign-symmetry", "difference-target-propagation")
ALIGNED = ("feedback-alignment", "difference-target-propagation")
MLPS, IMAGES = ("small", "digits"), ("cifar10-conv", "digits-conv")
#: Sections that compare some of the rules alone: runs are long, or the host is another.
SOME = {
    "full": (*(name for name in RATES if name not in ("backprop", "frozen-hidden")), "forward-forward:predict=all"),
    "mnist-conv": (*LEADERS, *ALIGNED),
    "cifar10-conv": (*LEADERS, *ALIGNED),
    "cora": ("forward-gnn", "forward-gnn:variant=la"),
}


def ask(*, section: str, rule: str, steps: int) -> Question | None:
    if rule not in SOME.get(section, (rule,)) or (rule in SOME["cora"]) != (section == "cora"):
        return None
    task, trials = net_of(section), TRIALS[section]
    if section == "full":
        task = dataclasses.replace(task, lr=(*task.lr[:2], RATES[rule.partition(":")[0]]))
    terms = {"trials": trials, "match": "none", "steps": steps or None}
    return Question(task, {"backprop": "backprop", "rule": f"rule/{rule}"}, {}, terms)


PART = study(
    ask,
    name="rules-side-by-side",
    paper=Paper(
        title="Assessing the Scalability of Biologically-Motivated Deep Learning Algorithms and Architectures",
        authors="Bartunov, S., Santoro, A., Richards, B. A., Marris, L., Hinton, G. E. and Lillicrap, T. P.",
        year=2018,
        arxiv="1807.04587",
        venue="NeurIPS",
    ),
    uses=("rule/backprop", "rule/frozen-hidden", *HOSTS, "task/cifar10", "task/cora"),
    grid={"section": ("small", "full", "mnist-conv", "cifar10-conv", "cora"), "rule": rules},
    options=(Option("steps", 0, "instead of the task's; 0: the task's", bounds=(-1, 10**9)),),
    sizes={
        "tiny": {"section": ("digits", "digits-conv"), "rule": ("feedback-alignment",), "steps": 60, "seeds": 6},
        "small": {"seeds": 6},
        "full": {"seeds": 20},
    },
    predicates=(
        verdict(
            "hidden",
            "on MNIST rules without weight transport train hidden layers: they are clearly above frozen ones",
            "rule",
            ("better",),
            {"section": MLPS, "rule": BIOLOGICAL},
            "abstract",
            against="against_control",
        ),
        verdict(
            "images",
            "on CIFAR-10 feedback alignment and target propagation are worse than backpropagation",
            "rule",
            ("worse",),
            {"section": IMAGES, "rule": ALIGNED},
            "abstract",
        ),
    ),
    controls=(Control("a single step, in which nothing is learnt", {"steps": 1}, ("hidden", "images")),),
    deviations=(
        "MNIST at 10 000 images and five epochs; CIFAR-10 at 10 000 images and three, with a small ConvNet",
        "in the section full the rate is the median that validation chose on 10 000 images",
        f"beside every rule at its defaults {len(VARIANTS)} other settings",
    ),
)
