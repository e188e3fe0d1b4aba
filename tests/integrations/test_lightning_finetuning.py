"""A backbone that Lightning's `BackboneFinetuning` unfreezes during training, against the loop written out."""

import lightning.pytorch as pl
from convolution_training import BATCH, OPTIONS, WrittenPenalty, check, images, loss_of, network, sgd
from lightning_tasks import loader, task, trainer

from ortho_kernels.integrations.lightning import OrthogonalityCallback


class Unfreezing(pl.callbacks.BaseFinetuning):
    """The backbone from the second epoch on, at the optimizer's learning rate."""

    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.net.backbone, train_bn=False)

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.net.backbone, optimizer, initial_denom_lr=1.0, train_bn=False)


def trained(parameters):
    return sgd([parameter for parameter in parameters if parameter.requires_grad])


def test_a_backbone_that_is_unfrozen_later():
    data = images(4)
    model = task(pl, trained)
    callback = OrthogonalityCallback(module="net.backbone", **OPTIONS["srip"])
    trainer(pl, callback, Unfreezing(), max_epochs=3).fit(model, loader(data))

    truth = network()
    penalty = WrittenPenalty(truth.backbone, "srip")
    truth.backbone.requires_grad_(False)
    optimizer = trained(truth.parameters())
    for epoch in range(3):
        if epoch == 1:
            truth.backbone.requires_grad_(True)
            optimizer.add_param_group({"params": list(truth.backbone.parameters())})
        for batch in data.split(BATCH):
            optimizer.zero_grad()
            (loss_of(truth, batch) + penalty()).backward()
            optimizer.step()
    check(model.net, truth)
