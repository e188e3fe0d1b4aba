"""Every kind of layer and option of the penalty under FSDP2, against one process."""

import pytest
import torch
from ranks import on_ranks
from torch import nn

from ortho_kernels import CosineSchedule, LoraPenalty, OrthogonalityPenalty

KINDS = {"so": {"kind": "so"}, "srip": {"kind": "srip"}, "warm": {"kind": "srip", "warm_start": True}}


def gpt2():
    import transformers

    sizes = {"n_layer": 1, "n_embd": 12, "n_head": 3, "vocab_size": 11, "n_positions": 8}
    return transformers.GPT2Model(transformers.GPT2Config(**sizes))


def mixtral():
    import transformers

    sizes = {"hidden_size": 12, "intermediate_size": 10, "num_attention_heads": 3, "num_key_value_heads": 3}
    config = transformers.MixtralConfig(
        **sizes, num_hidden_layers=1, vocab_size=11, num_local_experts=3, num_experts_per_tok=2
    )
    return transformers.MixtralModel(config)


def attention():
    return nn.Sequential(nn.MultiheadAttention(12, 3), nn.LayerNorm(12))


def convolutions():
    layers = nn.Conv2d(6, 12, 3, groups=3), nn.ConvTranspose2d(12, 6, 3, groups=2), nn.Conv1d(6, 5, 3)
    return nn.Sequential(*layers, nn.Conv2d(4, 7, 3))


def layers():
    return nn.Sequential(nn.Linear(9, 14), nn.Linear(14, 5), nn.Linear(5, 5))


def partly_frozen():
    model = layers()
    model[1].requires_grad_(False)
    return model


def tied():
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[1].weight = model[0].weight
    return model


class Adapted(nn.Linear):
    """A layer with an adapter of LoRA, as loralib has it."""

    def __init__(self, inputs, outputs, rank):
        super().__init__(inputs, outputs)
        self.weight.requires_grad_(False)
        self.lora_A, self.lora_B = nn.Parameter(torch.empty(rank, inputs)), nn.Parameter(torch.empty(outputs, rank))
        self.scaling = 0.5


def adapters():
    return nn.Sequential(Adapted(12, 16, 3), Adapted(16, 9, 4), nn.Linear(9, 3))


CASES = {
    "gpt2": (gpt2, {}),
    "gpt2, query apart": (gpt2, {"split_qkv": True, "reduction": "mean"}),
    "gpt2, heads": (gpt2, {"split_heads": True}),
    "mixtral": (mixtral, {}),
    "mixtral, gates": (mixtral, {"split_gate_up": True, "include": "*experts*"}),
    "attention, heads": (attention, {"split_heads": True}),
    "convolutions": (convolutions, {}),
    "convolutions whole": (convolutions, {"groups": "whole", "side": "rows"}),
    "include": (layers, {"include": ["0", "2.weight"], "exclude": "2"}),
    "patterns": (layers, {"gamma": {"0.*": 0.5, "2.weight": CosineSchedule(1.0, 0.1, 5), "*": 0.0}}),
    "every": (layers, {"every": 2, "gamma": 0.3}),
    "frozen": (partly_frozen, {}),
    "tied": (tied, {}),
    "factors": (adapters, {"lora": "factors"}),
}


def made(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.4)
    return model


def whole(tensor):
    return getattr(tensor, "full_tensor", lambda: tensor.clone())().detach()


def gradients(model):
    found = {name: whole(own.grad) for name, own in model.named_parameters() if own.grad is not None}
    model.zero_grad()
    return found


def rows(penalty):
    return [
        torch.tensor([row.value, row.gamma, row.largest, row.smallest, row.effective_rank]) for row in penalty.report()
    ]


def measured(model, options):
    """All that the penalty gives, twice in training and once in a hold."""
    found = {}
    optimizer = torch.optim.SGD([own for own in model.parameters() if own.requires_grad], lr=0.01)
    for kind, own in KINDS.items():
        penalty = OrthogonalityPenalty(model, **own, **({"gamma": 0.7} | options))
        found[kind, "names"] = str([(name, weight.shape, groups) for name, weight, groups in penalty.weights()])
        found[kind, "weights"] = [weight.detach().clone() for _, weight, _ in penalty.weights()]
        for step in range(2):
            found[kind, step, "report"] = rows(penalty)
            with penalty.hold():
                value = penalty()
                value.backward()
                found[kind, step, "loss"] = value.detach(), gradients(model)
                added = penalty.accumulate_gradients(0.5)
                penalty.accumulate_gradients(0.25)
                found[kind, step, "added"] = added, gradients(model)
        found[kind, "step"] = penalty.step_(optimizer)
        found[kind, "stepped"] = [whole(weight) for weight in model.parameters()]
        found[kind, "state"] = penalty.state_dict()
        found[kind, "eval"] = penalty.eval()().detach()
    return found


def measured_adapters(model):
    penalty = LoraPenalty(model, gamma=0.7)
    value = penalty()
    value.backward()
    return {"products": (value.detach(), gradients(model)), "added": (penalty.accumulate_gradients(), gradients(model))}


def sharded(rank, count, names):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh, found = init_device_mesh("cpu", (count,)), {}
    for name in names:
        make, options = CASES[name]
        model = made(make)
        fully_shard(model, mesh=mesh)
        found[name] = measured(model, options)
    if "factors" in names:
        model = made(adapters)
        fully_shard(model, mesh=mesh)
        found["products"] = measured_adapters(model)
    return found


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(list(CASES)[:5], marks=pytest.mark.slow, id="transformers"),
        pytest.param(list(CASES)[5:], id="torch"),
    ],
)
def test_models(names, tmp_path):
    alone = {name: measured(made(CASES[name][0]), CASES[name][1]) for name in names}
    if "factors" in names:
        alone["products"] = measured_adapters(made(adapters))
    for rank in on_ranks(2, tmp_path, sharded, 2, names):
        for name, parts in alone.items():
            assert rank[name].keys() == parts.keys()
            for part, theirs in parts.items():
                if isinstance(theirs, str):
                    assert rank[name][part] == theirs
                    continue
                torch.testing.assert_close(
                    rank[name][part], theirs, rtol=1e-4, atol=2e-5, msg=lambda text, at=(name, part): f"{at}: {text}"
                )
