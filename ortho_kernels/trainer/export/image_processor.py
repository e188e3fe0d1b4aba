"""The run's preprocessing as an image processor of transformers."""

from typing import Any

from ..data.preprocess import Preprocess

BILINEAR = 2  # PIL's number


def image_processor(preprocess: Preprocess) -> dict[str, Any]:
    """The content of preprocessor_config.json.

    CLIP's processor is the one that does what `Preprocess` does, in this order, in every version of transformers: the
    shorter side is scaled, the middle is cut out, the bytes are divided by 255, each channel is normalized.
    It scales once, where a run whose pictures are of another size than the encoder's scales twice.
    """
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": preprocess.channels == 3,
        "do_resize": True,
        "size": {"shortest_edge": preprocess.size},
        "resample": BILINEAR,
        "do_center_crop": True,
        "crop_size": {"height": preprocess.size, "width": preprocess.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }
