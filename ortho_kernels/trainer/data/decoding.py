"""One picture of any kind that PIL opens, as bytes of gray or color."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..errors import TrainerError, printable

ACCEPTED = "8- and 16-bit integers and floats between 0 and 1 are accepted"
LONGEST = 4  # times the shorter side; of longer pictures, which a batch would have to be padded to, the middle is kept
ORIENTATION = 0x0112  # the EXIF tag that says how the camera was held
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SWAPPING = {UPRIGHT[orientation] for orientation in (5, 6, 7, 8)}  # width and height


class PictureError(TrainerError):
    """A picture that can't be decoded, by its name, and why."""


def pixels_of(image: Image.Image, size: int, channels: int = 3) -> Tensor:
    """The middle of the picture as uint8 `(channels, size, size)`, with 1 or 3 channels: upright and scaled.

    It is turned as its EXIF says, and lies on white where it is transparent. 16-bit gray is divided by 257, floats
    between 0 and 1 are multiplied by 255. Of several frames the first counts.

    Raises PictureError, with the file's name, for other ranges and for a picture that PIL can't decode.
    """
    with named(printable(os.fsdecode(getattr(image, "filename", "") or "given"))):
        return middle_square(whole_pixels(image, size, channels))


def middle_square(pixels: Tensor) -> Tensor:
    """Of a picture `(channels, height, width)`, as transformers' processors cut it; torchvision's CenterCrop rounds an odd
    half to the even pixel."""
    height, width = pixels.shape[1:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[:, top : top + side, left : left + side]


def whole_pixels(image: Image.Image, size: int, channels: int = 3) -> Tensor:
    """The whole picture, its shorter side scaled to `size`, as uint8 `(channels, height, width)`.

    Of a picture that is more than LONGEST times as long as wide it is the middle.
    """
    upright = load_upright(image, channels, reduced_to=(size, size))
    width, height = (min(side, LONGEST * min(upright.size)) for side in upright.size)
    left, top = (upright.width - width) // 2, (upright.height - height) // 2
    middle = upright.crop((left, top, left + width, top + height))
    scaled = middle.resize(scaled_size(width, height, size), Image.Resampling.BILINEAR)
    return to_tensor(scaled)


def scaled_size(width: int, height: int, size: int) -> tuple[int, int]:
    """The width and height of what `whole_pixels` makes of a picture, as torchvision's Resize."""
    longer = min(int(size * max(width, height) / min(width, height)), LONGEST * size)
    return (longer, size) if width > height else (size, longer)


def to_tensor(image: Image.Image) -> Tensor:
    """A PIL picture of gray or color as uint8 `(channels, height, width)`."""
    return torch.from_numpy(np.array(image)).view(image.height, image.width, -1).permute(2, 0, 1)


def header_error(open_picture: Callable[[], Image.Image], name: str) -> PictureError | None:
    """What is wrong with the header, which alone is read."""
    try:
        with named(name), open_picture():
            return None
    except PictureError as error:
        return error


@contextmanager
def named(name: str) -> Iterator[None]:
    """At a broken file PIL raises nearly every kind of error; all of them get the file's name."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise PictureError(f"Cannot decode the picture {name}: {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    """Without the file's name, which some errors carry."""
    if isinstance(error, UnidentifiedImageError):
        return "PIL knows no file of this kind"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Height and width of an opened picture when it is upright."""
    lies = UPRIGHT.get(_orientation(image)) in SWAPPING
    return (image.width, image.height) if lies else (image.height, image.width)


def load_upright(image: Image.Image, channels: int, reduced_to: tuple[int, int] | None = None) -> Image.Image:
    """The picture, decoded, opaque and upright, in gray or color.

    A JPEG is decoded at a half, quarter or eighth of its size where that is still at least as large as `reduced_to`
    (width and height, as the file holds them).
    """
    if reduced_to is not None:
        image.draft("RGB", reduced_to)
    image.load()
    if 0 in image.size:
        raise ValueError("it has no pixels")
    turn = UPRIGHT.get(_orientation(image))
    opaque, mode = _opaque(image), {1: "L", 3: "RGB"}[channels]
    if opaque.mode != mode:  # else `convert` copies it
        opaque = opaque.convert(mode)
    return opaque if turn is None else opaque.transpose(turn)


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ORIENTATION)
    except Exception:  # the picture is whole: broken EXIF, whatever error PIL makes of it, just turns nothing
        return None


def _opaque(image: Image.Image) -> Image.Image:
    """The picture in 8 bits a channel, without transparency."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image)
        gray = _from_floats(values) if image.mode == "F" else _from_integers(values, image)
        if "transparency" in image.info:  # the one value that stands for "nothing here"
            gray[values == image.info["transparency"]] = 255
        return Image.fromarray(gray)
    if image.mode == "LAB":  # from which PIL has no way to gray
        return image.convert("RGB")
    if not image.has_transparency_data:
        return image
    if image.mode == "La":  # PIL has no direct way from premultiplied gray
        image = image.convert("LA")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)


def _from_floats(values: np.ndarray) -> np.ndarray:
    if not (values.min() >= 0 and values.max() <= 1):  # NaN too
        raise ValueError(f"its floats reach from {values.min():g} to {values.max():g}; {ACCEPTED}")
    return np.rint(values * 255).astype(np.uint8)


def _from_integers(values: np.ndarray, image: Image.Image) -> np.ndarray:
    """PIL opens some 16-bit files in 32 bits. In other files of 32 bits a small range could be any."""
    least, most = int(values.min()), int(values.max())
    known = image.mode != "I" or image.format in ("PNG", "PPM")
    if least < 0 or most > 65535 or (0 < most < 256 and not known):
        raise ValueError(f"its 32-bit integers reach from {least} to {most}, of an unknown range; {ACCEPTED}")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
