"""The network of `convolution_training` as a LightningModule, of either package, and a Trainer without trimmings."""

from convolution_training import BATCH, loss_of, network, sgd
from torch.utils.data import DataLoader

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def task(pl, optimizer=sgd):
    class Task(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network()

        def training_step(self, batch, index):
            return loss_of(self.net, batch)

        def configure_optimizers(self):
            return optimizer(self.parameters())

    return Task()


def loader(data):
    return DataLoader(data, batch_size=BATCH)


def trainer(pl, *callbacks, **options):
    return pl.Trainer(**QUIET | {"max_epochs": 1} | options, callbacks=list(callbacks))
