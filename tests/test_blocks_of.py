"""A model of one's own as ordered blocks: an nn.Sequential, a model whose modules are named, and what is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import toys
from torch import Tensor, nn

from netwright.core import catalogue
from netwright.core.errors import BadInput, Misfit, UnknownName
from netwright.engine.blocks import Blocks
from netwright.engine.loop import Loop, Setting
from netwright.engine.task import Problem


class Net(nn.Module):
    """A small convolutional net in the usual style: a stem, two stages, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.act1 = nn.ReLU()
        self.layer1 = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer2(self.layer1(self.act1(self.bn1(self.conv1(x)))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


IMAGE, NAMED = (
    torch.randn(2, 3, 8, 8),
    {"blocks": [["conv1", "bn1", "act1"], "layer1", "layer2"], "readout": ["avgpool", "flatten", "fc"]},
)


def problem(shape: tuple[int, ...], classes: int) -> Problem:
    return Problem.classification(shape, classes)


def sequential() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(12, 10),
        nn.BatchNorm1d(10),
        nn.ReLU(),
        nn.Linear(10, 9),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(9, 4),
    )


def test_a_sequential_is_taken_apart_at_its_layers():
    model = sequential()
    net = Blocks.of(model, torch.randn(5, 12))
    assert [len(block) for block in net.blocks] == [4, 3] and isinstance(net.readout, nn.Linear)
    assert net.shapes == ((10,), (9,)) and model.training
    assert set(map(id, net.parameters())) == set(map(id, model.parameters()))


def test_a_models_modules_are_named_in_the_order_they_run():
    model = Net()
    net = Blocks.of(model, IMAGE, **NAMED)
    assert net.shapes == ((8, 8, 8), (8, 4, 4), (16, 2, 2))
    assert int(model.bn1.num_batches_tracked) == 0 and model.training
    assert torch.equal(net.eval()(IMAGE), model.eval()(IMAGE))


@pytest.mark.every_part
def test_rules_train_the_model_itself():
    """Every rule that takes images and labels, through the wrapped model, moves the model's own parameters."""
    seen = 0
    for part in catalogue.parts("rule"):
        if part.tags.closed_form or part.tags.needs - {"blocks", "labels", "image"}:
            continue
        model = Net()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        try:
            rule = part.build(Blocks.of(model, IMAGE, **NAMED), problem((3, 8, 8), 4))
        except Misfit:
            continue
        y = torch.tensor([0, 1])
        setting = Setting(seed=0, lr=0.01, steps=1, batch=2, evals=(1,), optimizer=toys.ADAPTIVE, schedule=toys.STEADY)
        Loop(rule, setting).step(IMAGE, y, rule.draw(IMAGE, y, torch.Generator().manual_seed(0)))
        assert any(not torch.equal(before[name], p) for name, p in model.named_parameters()), part.id
        seen += 1
    assert seen >= 3


def test_what_is_refused_says_what_to_do():
    x = torch.randn(2, 12)
    with pytest.raises(BadInput, match="name them: Blocks.of"):
        Blocks.of(Net(), IMAGE)
    with pytest.raises(UnknownName, match="no module is called 'layer3'"):
        Blocks.of(Net(), IMAGE, blocks=["conv1", "layer3"], readout="fc")
    with pytest.raises(BadInput, match="needs readout="):
        Blocks.of(Net(), IMAGE, blocks=["conv1"])
    with pytest.raises(BadInput, match="don't compute what Net computes"):
        Blocks.of(Net(), IMAGE, blocks=[["conv1", "act1"], "layer1", "layer2"], readout=["avgpool", "flatten", "fc"])
    with pytest.raises(BadInput, match="a block and a readout"):
        Blocks.of(nn.Sequential(nn.Linear(12, 3), nn.ReLU()), x)


def test_a_rule_given_a_plain_model_says_how_to_declare_blocks():
    part = next(p for p in catalogue.parts("rule") if "blocks" in p.tags.needs and not p.tags.needs - {"blocks"})
    with pytest.raises(Misfit, match=r"Blocks\.of\(net, example\)"):
        part.cls(sequential(), problem((12,), 4))


def test_a_problem_of_classes_scores_accuracy():
    p = problem((12,), 4)
    out, y = torch.eye(4), torch.tensor([0, 1, 2, 0])
    assert p.metric(out, y) == 0.75 and p.encode is not None and p.encode(y).shape == (4, 4)
    torch.testing.assert_close(p.loss(out, y), F.cross_entropy(out, y))
    assert p.gives == {"labels", "vector"}
    assert problem((3, 8, 8), 4).gives == {"labels", "image"}
