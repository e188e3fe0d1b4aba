"""Small models of torch's own layers that no library above has: recurrences, computed weights, sets of features."""

from functools import partial

from architectures import BATCH, RECURRENT, Architecture, arguments
from torch import nn


class Recurrent(nn.Module):
    """Tokens, a recurrence over them, classes."""

    def __init__(self, recurrence, features=8, **options):
        super().__init__()
        self.embedding = nn.Embedding(16, 8)
        self.recurrence = recurrence(8, 8, batch_first=True, **options)
        self.head = nn.Linear(features, 3)

    def forward(self, ids):
        outputs, _ = self.recurrence(self.embedding(ids))
        return self.head(outputs[:, -1])


class Bags(nn.Module):
    """Two bags of features and how they interact, as in recommender systems."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.EmbeddingBag(16, 8)
        self.interaction = nn.Bilinear(8, 8, 4)
        self.head = nn.Linear(4, 1)

    def forward(self, left_ids, right_ids):
        return self.head(self.interaction(self.embedding(left_ids), self.embedding(right_ids)))


def computed(norm):
    """The norm makes a parametrization of a weight, or (the older way) a hook that computes it."""
    return nn.Sequential(norm(nn.Linear(8, 8)), nn.ReLU(), norm(nn.Linear(8, 4)))


LOOPS = {"recurrence.weight_?h_l*": RECURRENT}
tokens = arguments(ids=(2, 5))
features = arguments(input=(2, 8))

TORCH = [
    Architecture("rnn", partial(Recurrent, nn.RNN), tokens, LOOPS),
    Architecture("gru", partial(Recurrent, nn.GRU, features=16, bidirectional=True), tokens, LOOPS),
    Architecture("lstm", partial(Recurrent, nn.LSTM, num_layers=2), tokens, LOOPS),
    Architecture(
        "projected_lstm",
        partial(Recurrent, nn.LSTM, features=4, proj_size=4),
        tokens,
        {"recurrence.weight_*": RECURRENT},
    ),
    Architecture("bags", Bags, arguments(left_ids=(2, 3), right_ids=(2, 3)), {"interaction.weight": BATCH}),
    Architecture("transformer", partial(nn.Transformer, 8, 2, 1, 1, 16), arguments(src=(3, 2, 8), tgt=(4, 2, 8))),
    Architecture("weight_norm", partial(computed, nn.utils.parametrizations.weight_norm), features),
    Architecture("weight_norm_by_hook", partial(computed, nn.utils.weight_norm), features),
    Architecture("spectral_norm", partial(computed, nn.utils.parametrizations.spectral_norm), features),
    Architecture("spectral_norm_by_hook", partial(computed, nn.utils.spectral_norm), features),
    Architecture("orthogonal", partial(computed, nn.utils.parametrizations.orthogonal), features),
]
