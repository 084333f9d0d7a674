"""swap in models as people have them: torch's own, transformers' and timm's."""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest
import torch
from torch import nn

from netwright.core import catalogue
from netwright.core.errors import BadInput, Misfit
from netwright.surgery.swap import swap


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


def tiny_hf_vit() -> nn.Module:
    transformers = optional("transformers", "ViTForImageClassification")
    small = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=16, patch_size=8)
    return transformers.ViTForImageClassification(transformers.ViTConfig(**small)).eval()


def from_timm(name: str, **small: object) -> nn.Module:
    return optional("timm").create_model(name, pretrained=False, num_classes=5, **small).eval()


def tiny_timm_vit(**options: object) -> nn.Module:
    return from_timm("vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, **options)


def sequential() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(6 * 196, 5)).eval()


def image(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))


#: name: how it is made, the type of its activations and how many there are, a part that can start as it, an example
MODELS = {
    "timm-vit": (tiny_timm_vit, "GELU", 2, "pau", image(16)),
    "timm-resnet": (lambda: from_timm("resnet10t"), "ReLU", 11, "prelu", image(32)),
    "timm-convnext": (lambda: from_timm("convnext_atto"), "GELU", 12, "pau", image(32)),
    "timm-efficientnet": (lambda: from_timm("efficientnet_b0"), "SiLU", 49, "swish", image(32)),
    "bert": (tiny_bert, "GELUActivation", 2, "pau", TOKENS),
    "gpt2": (tiny_gpt2, "NewGELUActivation", 2, "pau", TOKENS),
    "llama": (tiny_llama, "SiLUActivation", 2, "swish", TOKENS),
    "vit": (tiny_hf_vit, "GELUActivation", 2, "pau", {"pixel_values": image(16)}),
    "sequential": (sequential, "ReLU", 1, "prelu", image(16)),
}


def run(model: nn.Module, example: object) -> torch.Tensor:
    """The floating output of a model of any library."""
    with torch.no_grad():
        out = model(**example) if isinstance(example, dict) else model(example)
    return out if isinstance(out, torch.Tensor) else out[0]


@pytest.mark.parametrize("name", MODELS)
def test_models_nobody_here_wrote(name: str) -> None:
    """Every activation is found, measured, replaced and put back; the output stays near the old one from a fitted start."""
    make, kind, count, learning, example = MODELS[name]
    torch.manual_seed(0)
    model = make()
    old = {type(m) for m in model.modules() if type(m).__name__ == kind}.pop()  # torch's, or the library's own
    keys, before = list(model.state_dict()), run(model, example)
    report = swap(model, old, "golu", example=example)
    assert len({s.path for s in report.sites}) == len(report.sites)
    assert sum(isinstance(m, golu_type()) for m in model.modules()) == len(report.sites) == count
    assert all(s.shape and s.channels and s.known == "example run" and s.variance_ratio for s in report.sites)
    now = run(model, example)
    assert report.drift is not None and report.drift > 0 and not torch.equal(now, before)
    if isinstance(example, torch.Tensor) or name == "vit":  # whose output is one tensor
        wanted = (now - before).square().mean().sqrt() / before.square().mean().sqrt()
        assert report.drift == pytest.approx(float(wanted), rel=1e-4)
    gates = [any("multiplies up_proj" in note for note in s.notes) for s in report.sites]
    assert all(gates) if name == "llama" else not any(gates)
    assert str(report).startswith(f"{count} places changed") and "variance" in str(report)
    report.restore(model)
    assert torch.equal(run(model, example), before) and list(model.state_dict()) == keys
    fitted = swap(model, old, learning, example=example, init_from="old")
    assert fitted.drift < 0.1 and fitted.drift < report.drift and max(s.fit_error for s in fitted.sites) < 0.01
    assert set(fitted.gained) == set(model.state_dict()) - set(keys) and len(fitted.gained) >= count
    fitted.restore(model)
    assert torch.equal(run(model, example), before)


@pytest.mark.parametrize(("old", "to"), [("silu", "swish"), ("relu", "prelu"), ("gelu", "pau"), ("silu", "pau"), ("relu", "pau")])
def test_parts_start_as_the_old_function(old: str, to: str) -> None:
    model, x = nn.Sequential(nn.Linear(6, 16), catalogue.get(old, "activation").build(), nn.Linear(16, 3)), torch.randn(32, 6)
    before = model(x)
    report = swap(model, old, to, example=x, init_from="old")
    assert report.sites[0].fit_error < 0.02 and torch.allclose(model(x), before, atol=0.05)


def test_gates_of_fused_mlps() -> None:
    layers = optional("timm.layers")
    for make, half in ((layers.SwiGLU, "fc1_x"), (layers.GluMlp, "another branch")):
        model, x = nn.Sequential(make(8, 16, 8)), torch.randn(3, 8)
        with pytest.raises(Misfit, match=f"0.act already multiplies {half}.*for its gate alone give to='silu'"):
            swap(model, "0.act", "swiglu", example=x)
        report = swap(model, "0.act", "silu", example=x)
        assert half in report.sites[0].notes[0] and report.sites[0].notes[0].startswith("a gate")


def test_calls_around_a_librarys_model_are_changed() -> None:
    class Head(nn.Module):
        """A model around a library's, with calls of its own."""

        def __init__(self) -> None:
            super().__init__()
            self.body, self.out = tiny_timm_vit(), nn.Linear(5, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(torch.nn.functional.gelu(self.body(x))).relu()

    head, x = Head().eval(), image(16)
    before = run(head, x)
    report = swap(head, torch.nn.functional.gelu, "golu", example=x, functional=True)
    assert [s.path for s in report.sites] == ["swapped_gelu"] and report.drift is not None and report.drift > 0
    assert [(u.path, u.function) for u in report.unreached] == [("", "relu")]
    swap(head, "activation/golu", nn.GELU)
    assert torch.equal(run(head, x), before)


def test_a_call_inside_a_librarys_module_is_changed() -> None:
    layers = optional("timm.layers.split_attn")
    model, x = nn.Sequential(layers.RadixSoftmax(radix=1, cardinality=1), nn.ReLU()), torch.randn(2, 6)
    before = run(model, x)
    report = swap(model, nn.Sigmoid, nn.Hardsigmoid, example=x, functional=True)
    assert [s.path for s in report.sites] == ["0.swapped_sigmoid"] and torch.equal(run(model, x), nn.functional.hardsigmoid(x))
    report.restore(model)
    assert torch.equal(run(model, x), before)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet10t", "convnext_atto", "efficientnet_b0"])
def test_timm_builds_its_models_with_a_part(name: str) -> None:
    optional("timm")
    from netwright.activations import GoLU

    model = tiny_timm_vit(act_layer=GoLU) if "vit" in name else from_timm(name, act_layer=GoLU)
    assert sum(isinstance(m, GoLU) for m in model.modules()) >= 2
    assert run(model, image(16 if "vit" in name else 32)).shape == (2, 5)


def test_transformers_takes_a_part_from_its_table() -> None:
    table = optional("transformers.activations").ACT2FN
    from netwright.activations import GoLU

    transformers = optional("transformers", "BertModel")
    table["golu"] = GoLU
    try:
        small = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, hidden_act="golu")
        model = transformers.BertModel(transformers.BertConfig(vocab_size=50, **small)).eval()
    finally:
        del table["golu"]
    assert sum(isinstance(m, GoLU) for m in model.modules()) == 2 and run(model, TOKENS).isfinite().all()


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


def test_kan_in_the_mlps_of_a_timm_vit_at_equal_parameters() -> None:
    timm = optional("timm")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False, num_classes=10, depth=2, img_size=32)
    x, was = torch.randn(2, 3, 32, 32), sum(p.numel() for p in model.parameters())
    report = swap(model, "blocks.*.mlp.fc?", "kan", match="params", example=x)
    swap(model, "blocks.*.mlp.act", nn.Identity)
    assert [type(m).__name__ for m in (model.blocks[0].mlp.fc1, model.blocks[1].mlp.fc2)] == ["KAN", "KAN"]
    assert model.blocks[0].mlp.fc1.sizes["d_out"] == model.blocks[0].mlp.fc2.sizes["d_in"] == 86
    assert abs(sum(p.numel() for p in model.parameters()) / was - 1) < 0.01
    assert "widths 768 -> 86" in str(report)
    model(x).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_kan_in_a_plain_mlp_trains_and_comes_back() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 32), nn.GELU(), nn.Linear(32, 1))
    x = 2 * torch.rand(256, 2) - 1
    y = torch.exp(torch.sin(torch.pi * x[:, :1]) + x[:, 1:] ** 2)
    report = swap(model, nn.Linear, "kan", match="params")
    swap(model, nn.GELU, nn.Identity)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    before = float((model(x) - y).square().mean().detach())
    for _ in range(100):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    assert float((model(x) - y).square().mean().detach()) < before / 10
    report.restore(model)
    assert [type(m).__name__ for m in model] == ["Linear", "Identity", "Linear"]
