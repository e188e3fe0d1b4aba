"""The model card: what an exported encoder is, how it is used, how it was trained, and how well it did."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from ..data.preprocess import Preprocess
from .training import Score

PAPER = (
    "[Preventing Dimensional Collapse in Self-Supervised Learning via Orthogonality Regularization]"
    "(https://arxiv.org/abs/2411.00392) (He, Du, Ma, NeurIPS 2024)"
)
SHOWN = {  # of a run's options, and what they are
    "method.name": "method",
    "data.name": "pictures",
    "backbone.name": "backbone",
    "penalty.name": "penalty of the weights",
    "penalty.gamma": "gamma, the penalty's factor",
    "optimizer.name": "optimizer",
    "optimizer.lr": "learning rate",
    "optimizer.weight_decay": "weight decay",
    "trainer.batch_size": "pictures of a batch",
    "seed": "seed",
    "init_sha256": "SHA-256 of the weights that it started from",
}
SCALED = (
    "Of a picture that it has to scale, some bytes are rounded otherwise than the run rounded them, by one of 255, and the "
    "features differ as little. A JPEG that was at least twice too large, the run decoded at a fraction of its size."
)


def use_lines(folder: str, channels: int) -> str:
    """Python that computes the features of a picture."""
    mode = "RGB" if channels == 3 else "L"
    return f"""from PIL import Image
from transformers import AutoImageProcessor, AutoModel

model, processor = AutoModel.from_pretrained("{folder}"), AutoImageProcessor.from_pretrained("{folder}")
picture = Image.open("picture.jpg").convert("{mode}")
features = model(**processor(picture, return_tensors="pt")).pooler_output.flatten(1)"""


def model_card(
    folder: str, features: int, preprocess: Preprocess, training: dict[str, Any] | None, scores: Sequence[Score]
) -> str:
    """Markdown, with the metadata that the Hub reads at its top.

    Args:
        folder: the export's name.
        features: the length of a feature vector.
        training: how the encoder was trained; None where a file of an earlier version does not say.
    """
    parts = [_metadata(training), _title(training), _use(folder, features, preprocess), _training(training)]
    return "\n\n".join([*parts, _scores(scores)]) + "\n"


def _metadata(training: dict[str, Any] | None) -> str:
    tags = ["self-supervised-learning", *([training["options"]["method"]["name"]] if training else [])]
    head = {"library_name": "transformers", "pipeline_tag": "image-feature-extraction", "tags": tags}
    return f"---\n{OmegaConf.to_yaml(head).strip()}\n---"


def _title(training: dict[str, Any] | None) -> str:
    if training is None:
        return "# An image encoder\n\nIt was pretrained without labels by `ortho_kernels`."
    options = training["options"]
    title = f"# {options['backbone']['name']}, pretrained by {options['method']['name']} on {options['data']['name']}"
    sentences = ["An image encoder, pretrained without labels by `ortho_kernels`.", *_start(options)]
    return f"{title}\n\n{' '.join([*sentences, _penalty(options['penalty'])])}"


def _start(options: dict[str, Any]) -> list[str]:
    """What the encoder knew before: others' weights may have seen labels."""
    known = options.get("init_sha256")
    return ["It started from trained weights. What those had seen, labels too, is not known here."] if known else []


def _penalty(options: dict[str, Any]) -> str:
    if options["gamma"] == 0:
        return "Its weights were under no penalty."
    if options["name"] in ("so", "srip"):
        return f"A penalty drew its weights to orthogonality, as in {PAPER}."
    return f"Its weights were under the penalty `{options['name']}`."


def _use(folder: str, features: int, preprocess: Preprocess) -> str:
    kind = {1: "gray", 3: "color"}[preprocess.channels]
    sentences = [
        f"`features` has the shape `(pictures, {features})`.",
        f"The processor makes of each {kind} picture its middle square, at {preprocess.size} x {preprocess.size} pixels.",
        SCALED,
    ]
    if preprocess.decode_size != preprocess.size:
        sentences.append(
            f"The run scaled that square to {preprocess.decode_size} pixels before it did so. So the features of other "
            "pictures differ a little from the run's."
        )
    return f"## Use\n\n```python\n{use_lines(folder, preprocess.channels)}\n```\n\n{' '.join(sentences)}"


def _training(training: dict[str, Any] | None) -> str:
    if training is None:
        return "## Training\n\nThe file that this was made from does not say how the encoder was trained."
    config = OmegaConf.create(training["options"])
    rows = [(meaning, OmegaConf.select(config, key)) for key, meaning in SHOWN.items()]
    rows += [("steps", training["step"]), ("network", training["network"])]
    given = [(name, f"{value:g}" if isinstance(value, float) else value) for name, value in rows if value is not None]
    table = _table(("option", "value"), given)
    options = OmegaConf.to_yaml(config).strip()
    return f"## Training\n\n{table}\n\n<details><summary>All options</summary>\n\n```yaml\n{options}\n```\n\n</details>"


def _scores(scores: Sequence[Score]) -> str:
    if not scores:
        return "## Scores\n\nNone are known."
    rows = [
        (score.protocol, score.data, f"{score.accuracy:.2%}", f"{score.low:.2%} to {score.high:.2%}")
        for score in scores
    ]
    table = _table(("protocol", "pictures", "accuracy", "95 % interval"), rows)
    return f"## Scores\n\n{table}\n\nThe interval is of the test pictures drawn (Wilson's). It knows nothing of other seeds."


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)
