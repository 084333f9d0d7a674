"""swap in models as people have them: torch's own, transformers' and timm's."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
import torch
from torch import nn

from netwright import catalogue
from netwright.part import BadInput, Misfit
from netwright.swap import swap


def optional(name: str, *attributes: str) -> ModuleType:
    """The module, or a skip that names why it can't be imported (a missing package, or one built for another torch)."""
    try:
        module = importlib.import_module(name)
        for attribute in attributes:  # transformers imports a model's file on first use
            getattr(module, attribute)
        return module
    except Exception as error:
        pytest.skip(f"{name} can't be imported: {type(error).__name__}: {str(error)[:80]}")


def golu_type() -> type[nn.Module]:
    return catalogue.get("golu", "activation").module_type()


def tiny_bert() -> nn.Module:
    transformers = optional("transformers", "BertModel")
    small = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
    return transformers.BertModel(transformers.BertConfig(vocab_size=50, **small)).eval()


def tiny_gpt2() -> nn.Module:
    transformers = optional("transformers", "GPT2LMHeadModel")
    config = transformers.GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    return transformers.GPT2LMHeadModel(config).eval()


def tiny_llama() -> nn.Module:
    transformers = optional("transformers", "LlamaForCausalLM")
    small = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=50, **small)).eval()


TOKENS = {"input_ids": torch.tensor([[1, 2, 3, 4]])}


def test_bert_by_pattern_with_channels_from_an_example() -> None:
    torch.manual_seed(0)
    model = tiny_bert()
    before = model(**TOKENS).last_hidden_state
    report = swap(model, "encoder.layer.*.intermediate.intermediate_act_fn", "golu", example=TOKENS)
    assert [(s.channels, s.channel_dim, s.known) for s in report.sites] == [(24, -1, "example run")] * 2
    assert sum(isinstance(m, golu_type()) for m in model.modules()) == 2
    assert not torch.equal(model(**TOKENS).last_hidden_state, before)
    old = optional("transformers.activations").GELUActivation
    swap(model, golu_type(), old)
    assert torch.equal(model(**TOKENS).last_hidden_state, before)


def test_bert_says_that_its_activation_is_not_torchs() -> None:
    with pytest.raises(BadInput, match="GELUActivation \\(encoder.layer.0.intermediate.intermediate_act_fn"):
        swap(tiny_bert(), nn.GELU, "golu")


class Slopes(nn.Module):
    """One slope a channel, left of 0."""

    def __init__(self, channels: int, channel_dim: int) -> None:
        super().__init__()
        self.slope, self.channel_dim = nn.Parameter(torch.full((channels,), 0.25)), channel_dim

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, x * self.slope)


@pytest.mark.parametrize(("make", "pattern", "width"), [(tiny_gpt2, "*.mlp.act", 64), (tiny_llama, "*.mlp.act_fn", 40)])
def test_language_models_whose_activation_is_registered_last(make, pattern: str, width: int) -> None:
    model = make()
    with pytest.raises(Misfit, match="give example="):  # the layer registered before it is not the one that feeds it
        swap(model, pattern, Slopes)
    report = swap(model, pattern, Slopes, example=TOKENS)
    assert [(s.channels, s.channel_dim) for s in report.sites] == [(width, -1)] * 2
    model(**TOKENS).logits.sum().backward()
    assert all(p.grad is not None for p in report.parameters(model)) and report.added_parameters == 2 * width
    assert set(report.gained) <= set(model.state_dict())


def test_gpt2_keeps_its_tied_head() -> None:
    model = tiny_gpt2()
    swap(model, "*.mlp.act", "golu")
    assert model.lm_head.weight is model.transformer.wte.weight


@pytest.mark.parametrize(
    ("name", "what", "size"),
    [("resnet10t", "ReLU", 64), ("vit_tiny_patch16_224", "GELU", 224), ("convnext_atto", "GELU", 64)],
)
def test_timm_models(name: str, what: str, size: int) -> None:
    timm = optional("timm")
    model = timm.create_model(name, pretrained=False, num_classes=5).eval()
    x = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    old = {type(m) for m in model.modules() if type(m).__name__ == what}.pop()  # torch's, or timm's own of that name
    count = sum(isinstance(m, old) for m in model.modules())
    with torch.no_grad():
        before = model(x)
        report = swap(model, old, "golu", example=x)
        assert len({id(model.get_submodule(s.path)) for s in report.sites}) == count > 0
        assert all(s.channels and s.known == "example run" for s in report.sites)
        assert not torch.equal(model(x), before)
        swap(model, "activation/golu", old)
        assert torch.equal(model(x), before)


def test_a_torch_encoder_from_its_module_to_a_part() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation=nn.GELU())
    model = nn.TransformerEncoder(layer, 2).eval()
    report = swap(model, nn.GELU, "golu", example=torch.randn(2, 4, 8))
    assert [s.channels for s in report.sites] == [16, 16] and not report.unreached


def test_a_trained_net_goes_on_training_with_its_new_parameters() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    report = swap(model, nn.GELU, nn.PReLU)
    optimizer.add_param_group({"params": report.parameters(model)})
    before = model[1].weight.clone()
    model(torch.randn(16, 4)).square().mean().backward()
    optimizer.step()
    assert not torch.equal(model[1].weight, before)
