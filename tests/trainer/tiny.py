"""The options of a run that takes a second; in a file that processes started by a test can import."""

TINY = [
    "data=digits",
    "backbone.width=4",
    "method.hidden=16",
    "method.projection=8",
    "trainer.batch_size=16",
    "trainer.max_steps=2",
    "trainer.log_every=1",
    "evaluation.train_images=60",
    "evaluation.test_images=40",
]

# A run that can be cut off: a checkpoint every four steps, and rounding that stays small.
LONGER = [
    "data=digits",
    "method=simclr",
    "penalty=srip",
    "backbone.width=2",
    "method.hidden=16",
    "method.projection=8",
    "trainer.batch_size=16",
    "trainer.max_steps=24",
    "trainer.checkpoint_every=4",
    "trainer.precision=64-true",
    "trainer.tensorboard=false",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "trainer.timeout=60",
    "evaluation.train_images=60",
    "evaluation.test_images=40",
]


SMALL_DECODER = ["method.decoder_width=16", "method.decoder_depth=1", "method.decoder_heads=2"]


def tiny_words(*words):
    """The options before these words."""
    vit, mae = "backbone=vit_tiny" in words, "method=mae" in words
    left_out = ("backbone.",) * vit + ("method.",) * mae
    kept = [word for word in TINY if not word.startswith(left_out)]
    return kept + ["backbone.depth=1"] * vit + SMALL_DECODER * mae
