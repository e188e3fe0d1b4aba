"""Layers with adapters, named as in PEFT 0.21 and in loralib, without either library."""

import torch
from torch import nn


class LoraLayer(nn.Module):
    """PEFT's: the base layer, and the adapters by their names."""

    def __init__(self, base_layer, A, B, scaling=0.5, adapter="default"):
        super().__init__()
        self.base_layer = base_layer.requires_grad_(False)
        self.lora_A, self.lora_B = nn.ModuleDict(), nn.ModuleDict()
        self.scaling = {}
        self.rank = len(A.weight)
        self.add(adapter, A, B, scaling)

    def add(self, adapter, A, B, scaling=0.5):
        self.lora_A[adapter], self.lora_B[adapter], self.scaling[adapter] = A, B, scaling

    def product(self, adapter="default"):
        B, A = self.lora_B[adapter].weight, self.lora_A[adapter].weight
        return self.scaling[adapter] * B.flatten(1) @ A.flatten(1)


def lora_linear(inputs, outputs, r, **options):
    A, B = nn.Linear(inputs, r, bias=False), nn.Linear(r, outputs, bias=False)
    return LoraLayer(nn.Linear(inputs, outputs), A, B, **options)


def lora_convolution(inputs, outputs, r, groups=1):
    A, B = nn.Conv2d(inputs, r, 3, bias=False), nn.Conv2d(r, outputs, 1, groups=groups, bias=False)
    return LoraLayer(nn.Conv2d(inputs, outputs, 3, groups=groups), A, B)


class LoraEmbedding(nn.Module):
    """PEFT's: empty dictionaries for linear factors, too."""

    def __init__(self, entries, width, r):
        super().__init__()
        self.rank = r
        self.base_layer = nn.Embedding(entries, width).requires_grad_(False)
        self.lora_A, self.lora_B = nn.ModuleDict(), nn.ModuleDict()
        self.lora_embedding_A = nn.ParameterDict({"default": torch.randn(r, entries)})
        self.lora_embedding_B = nn.ParameterDict({"default": torch.randn(width, r)})
        self.scaling = {"default": 2.0}

    def product(self):
        return self.scaling["default"] * self.lora_embedding_B["default"] @ self.lora_embedding_A["default"]


class AdaLoraLinear(nn.Module):
    """PEFT's `SVDLinear`."""

    def __init__(self, inputs, outputs, r):
        super().__init__()
        self.rank = r
        self.base_layer = nn.Linear(inputs, outputs).requires_grad_(False)
        self.lora_A = nn.ParameterDict({"default": torch.randn(r, inputs)})
        self.lora_E = nn.ParameterDict({"default": torch.randn(r, 1)})
        self.lora_B = nn.ParameterDict({"default": torch.randn(outputs, r)})
        self.ranknum = nn.ParameterDict({"default": nn.Parameter(torch.tensor([float(r)]), requires_grad=False)})
        self.scaling = {"default": 3}

    def product(self):
        scale = self.scaling["default"] / (self.ranknum["default"] + 1e-5)
        return scale * self.lora_B["default"] @ (self.lora_E["default"] * self.lora_A["default"])


class LoralibLinear(nn.Linear):
    """Microsoft's: one adapter, its factors beside the frozen weight."""

    def __init__(self, inputs, outputs, r):
        super().__init__(inputs, outputs)
        self.requires_grad_(False)
        self.rank = r
        self.lora_A, self.lora_B = nn.Parameter(torch.randn(r, inputs)), nn.Parameter(torch.randn(outputs, r))
        self.scaling = 0.25

    def product(self):
        return self.scaling * self.lora_B @ self.lora_A
