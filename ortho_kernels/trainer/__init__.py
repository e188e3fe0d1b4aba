"""The reference self-supervised trainer: a baseline and a regularized run that differ in gamma alone.

    python -m ortho_kernels.trainer method=byol data=fashion_mnist penalty=so penalty.gamma=1e-6 backbone=resnet18
    python -m ortho_kernels.trainer.compare experiment=quick/fashion_mnist

Lightning is the engine, Lightly gives heads and losses, torchvision and timm the backbones, Hydra the configuration.
"""
