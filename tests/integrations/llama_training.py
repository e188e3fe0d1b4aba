"""A small Llama, its data, and the loop that trainers of other libraries are held to, written out in plain torch."""

from contextlib import nullcontext

import torch
import transformers
from torch import nn
from written_out import written_value

STEPS, BATCH, LENGTH, RATE = 20, 8, 6, 0.1
GAMMA = {"so": 0.02, "srip": 0.1}


def language_model():
    """Llama of two layers, with weights large enough to matter."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=8,
        initializer_range=0.2,
    )
    return transformers.LlamaForCausalLM(config)


def examples(count):
    """A list, as a dataset of the Trainer is."""
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randint(1, 40, (LENGTH,), generator=generator) for _ in range(count)]
    return [{"input_ids": row, "labels": row} for row in rows]


def batches(count, size=BATCH):
    """The same in order, `size` at once."""
    rows = examples(count * size)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        yield {name: torch.stack([row[name] for row in part]) for name in part[0]}


def linear_weights(model):
    return {f"{name}.weight": part.weight for name, part in model.named_modules() if isinstance(part, nn.Linear)}


class Formula:
    """The penalty and its gradient by autograd of the formula in float64, as `accumulate_gradients` is called."""

    def __init__(self, weights, kind, gamma):
        self.weights, self.kind, self.gamma = weights, kind, gamma
        self.step = 0

    def accumulate_gradients(self):
        copies = [weight.detach().double().requires_grad_() for weight in self.weights.values()]
        value = self.gamma * self.total(dict(zip(self.weights, copies, strict=True)))
        for weight, gradient in zip(self.weights.values(), torch.autograd.grad(value, copies), strict=True):
            weight.grad += gradient.to(weight.grad)
        self.step += 1
        return value.detach()

    def total(self, weights):
        return sum(written_value(name, weight, self.kind, self.step) for name, weight in weights.items())


def train(model, penalty=None, *, steps=STEPS, accumulation=1, clip=0.0, dtype=None, scaler=None):
    """SGD: the loss's backward, unscaling, clipping, the penalty's gradient, the step. Returns the penalty's values."""
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=RATE)
    data = batches(steps * accumulation)
    values = []
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(accumulation):
            with torch.autocast("cpu", dtype) if dtype else nullcontext():
                loss = model(**next(data), num_items_in_batch=accumulation * BATCH * (LENGTH - 1)).loss.float()
            (loss if scaler is None else scaler.scale(loss)).backward()
        if scaler is not None:
            scaler.unscale_(optimizer)
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        if penalty is not None:
            values.append(penalty.accumulate_gradients())
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
    return values


def trained(kind):
    model = language_model()
    train(model, Formula(linear_weights(model), kind, GAMMA[kind]))
    return model


def assert_close(model, other, tolerance=1e-5):
    """Relative in norm, each parameter."""
    for (name, left), right in zip(model.named_parameters(), other.parameters(), strict=True):
        left, right = left.detach().double(), right.detach().double()
        assert (left - right).norm() <= tolerance * right.norm() + 1e-7, (
            name
        )  # a key's bias has no gradient but rounding
