"""What becomes of the pictures of every kind that PIL opens, each written to a file and read back."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torchvision.transforms import v2

from ortho_kernels.trainer.data.decoding import PictureError, pixels_of
from ortho_kernels.trainer.errors import TrainerError

SIZE = 16
RAMP = np.linspace(0, 65535, SIZE * SIZE).round().astype(np.uint16).reshape(SIZE, SIZE)
RAMP_IN_8_BITS = torch.from_numpy(np.rint(RAMP / 257).astype(np.uint8))


def read(path, channels=3, size=SIZE):
    with Image.open(path) as image:
        return pixels_of(image, size, channels)


def png(path, bits, kind, samples, transparency=None):
    """A PNG by hand: PIL writes no color of 16 bits. `samples` is `(height, width, channels)`."""
    rows = b"".join(b"\0" + row.astype(f">u{bits // 8}").tobytes() for row in samples)
    height, width = samples.shape[:2]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))]
    if transparency is not None:
        chunks.append((b"tRNS", struct.pack(">H", transparency)))
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(data)) + name + data for name, data in chunks]
    sums = [struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(a + b for a, b in zip(packed, sums, strict=True)))
    return path


def test_the_picture_is_scaled_as_torchvision_scales_it():
    """To the bit, whatever the sides. Of its middle, an odd half of a pixel is rounded down."""
    transform = v2.Compose([v2.Resize(SIZE), v2.PILToTensor()])
    generator = np.random.default_rng(0)
    for height, width in generator.integers(SIZE // 2, 2 * SIZE, (200, 2)):
        picture = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
        scaled = transform(picture)
        top, left = ((side - SIZE) // 2 for side in scaled.shape[1:])
        assert torch.equal(pixels_of(picture, SIZE), scaled[:, top : top + SIZE, left : left + SIZE]), (width, height)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jp2"])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_gray_is_divided_by_257(tmp_path, name, channels):
    Image.fromarray(RAMP).save(tmp_path / name)
    pixels = read(tmp_path / name, channels)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, RAMP_IN_8_BITS.expand(channels, SIZE, SIZE))


def test_16_bit_gray_of_either_byte_order_and_in_32_bits(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 16 16 65535\n" + RAMP.astype(">u2").tobytes())
    assert torch.equal(read(tmp_path / "a.pgm")[0], RAMP_IN_8_BITS)
    tiff = io.BytesIO()
    Image.frombytes("I;16B", (SIZE, SIZE), RAMP.astype(">u2").tobytes()).save(tiff, "TIFF")
    assert Image.open(tiff).mode == "I;16B"
    assert torch.equal(read(tiff)[0], RAMP_IN_8_BITS)
    little = Image.frombytes("I;16L", (SIZE, SIZE), RAMP.astype("<u2").tobytes())
    assert torch.equal(pixels_of(little, SIZE)[0], RAMP_IN_8_BITS)
    Image.fromarray(RAMP.astype(np.int32)).save(tmp_path / "b.tif")
    assert Image.open(tmp_path / "b.tif").mode == "I"
    assert torch.equal(read(tmp_path / "b.tif")[0], RAMP_IN_8_BITS)


def test_a_dark_16_bit_picture_stays_dark(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 16 16 65535\n" + np.full((16, 16), 200, ">u2").tobytes())
    assert read(tmp_path / "a.pgm").unique().tolist() == [1]


def assert_refused(path, values, reason):
    """A file of these values stops with its name and the reason."""
    Image.fromarray(values).save(path)
    with pytest.raises(
        PictureError, match=rf"Cannot decode the picture .*{re.escape(path.name)}: .*{reason}"
    ) as refusal:
        read(path)
    assert isinstance(refusal.value, TrainerError)


@pytest.mark.parametrize(("least", "most"), [(0, 70000), (-1, 65535), (0, 255)])
def test_32_bit_integers_of_another_range_stop_with_the_name(tmp_path, least, most):
    values = np.full((SIZE, SIZE), least, np.int32)
    values[0, 0] = most
    assert_refused(tmp_path / "wide.tif", values, rf" from {least} to {most}, .*accept")


def test_floats_between_0_and_1_are_multiplied_by_255(tmp_path):
    Image.fromarray((RAMP / 65535).astype(np.float32)).save(tmp_path / "a.tif")
    assert torch.equal(read(tmp_path / "a.tif")[2], RAMP_IN_8_BITS)
    assert torch.equal(read(tmp_path / "a.tif", channels=1)[0], RAMP_IN_8_BITS)


@pytest.mark.parametrize("value", [1.5, -0.1, 255.0, float("nan"), float("inf")])
def test_other_floats_stop_with_the_name(tmp_path, value):
    values = np.zeros((SIZE, SIZE), np.float32)
    values[3, 3] = value
    assert_refused(tmp_path / "wide.tif", values, "floats between 0 and 1 are accepted")


def test_16_bit_color_is_reduced_by_pil(tmp_path):
    color = np.stack([RAMP, np.zeros_like(RAMP), np.full_like(RAMP, 65535)], 2)
    pixels = read(png(tmp_path / "rgb.png", 16, 2, color))
    assert torch.equal(pixels[0], torch.from_numpy((RAMP >> 8).astype(np.uint8)))  # its upper byte
    assert (pixels[1].max(), pixels[2].min()) == (0, 255)
    alpha = np.concatenate([color, np.zeros_like(RAMP)[..., None]], 2)
    assert read(png(tmp_path / "rgba.png", 16, 6, alpha)).unique().tolist() == [255]


def test_a_transparent_value_of_gray_is_white(tmp_path):
    values = np.full((SIZE, SIZE, 1), 1000)
    values[0, 0] = 30000
    assert read(png(tmp_path / "a.png", 16, 0, values, transparency=1000))[0, :2, 0].tolist() == [117, 255]
    values = np.full((SIZE, SIZE, 1), 10)
    values[0, 0] = 40
    assert read(png(tmp_path / "b.png", 8, 0, values, transparency=10))[0, :2, 0].tolist() == [40, 255]


def test_black_and_white(tmp_path):
    picture = Image.new("1", (SIZE, SIZE))
    picture.putpixel((0, 0), 1)
    picture.save(tmp_path / "a.png")
    pixels = read(tmp_path / "a.png")
    assert (pixels[:, 0, 0].tolist(), pixels[:, 0, 1].tolist()) == ([255] * 3, [0] * 3)


def test_palettes_and_their_transparency(tmp_path):
    picture = Image.new("P", (SIZE, SIZE), 1)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putpixel((0, 0), 0)
    picture.save(tmp_path / "a.png")
    assert read(tmp_path / "a.png")[:, 0, :2].T.tolist() == [[10, 20, 30], [200, 100, 50]]
    for name in ("b.png", "b.gif"):
        picture.save(tmp_path / name, transparency=0)
        assert read(tmp_path / name)[:, 0, :2].T.tolist() == [[255] * 3, [200, 100, 50]]
    picture.save(tmp_path / "c.png", transparency=bytes([255, 0]))
    assert read(tmp_path / "c.png")[:, 0, :2].T.tolist() == [[10, 20, 30], [255] * 3]


@pytest.mark.parametrize(
    ("mode", "color"),
    [("RGBA", (0, 100, 200, 51)), ("LA", (100, 51)), ("La", (20, 51)), ("RGBa", (0, 20, 40, 51)), ("PA", None)],
)
def test_alpha_lies_on_white(tmp_path, mode, color):
    if mode == "PA":
        picture = Image.new("RGBA", (SIZE, SIZE), (0, 100, 200, 51)).convert("PA")
    else:
        picture = Image.new(mode, (SIZE, SIZE), color)
    straight = (100, 100, 100) if "L" in mode else (0, 100, 200)
    expected = torch.tensor([0.2 * value + 0.8 * 255 for value in straight])
    written = [picture]
    if mode in ("RGBA", "LA"):
        picture.save(tmp_path / "a.png")
        written.append(Image.open(tmp_path / "a.png"))
    for image in written:
        # A palette of 216 colors holds 102 and 204, not 100 and 200.
        torch.testing.assert_close(pixels_of(image, SIZE)[:, 5, 5].float(), expected, atol=1.2, rtol=0)


@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk(tmp_path, adobe):
    """PIL writes CMYK as Adobe's programs do, inverted and with their marker; without the marker it is taken as it is."""
    picture = Image.new("CMYK", (SIZE, SIZE), (255, 0, 0, 51))
    picture.save(tmp_path / "a.jpg", quality=100)
    content = (tmp_path / "a.jpg").read_bytes()
    if not adobe:
        start = content.index(b"\xff\xee")
        (length,) = struct.unpack(">H", content[start + 2 : start + 4])
        content = content[:start] + content[start + 2 + length :]
        (tmp_path / "a.jpg").write_bytes(content)
    expected = Image.open(tmp_path / "a.jpg").convert("RGB").getpixel((5, 5))
    assert read(tmp_path / "a.jpg")[:, 5, 5].tolist() == list(expected)
    if adobe:
        torch.testing.assert_close(torch.tensor(expected), torch.tensor([0, 204, 204]), atol=3, rtol=0)
    picture.save(tmp_path / "a.tif")
    torch.testing.assert_close(
        read(tmp_path / "a.tif")[:, 5, 5].int(), torch.tensor([0, 204, 204]).int(), atol=1, rtol=0
    )


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB"])
def test_other_color_spaces(tmp_path, mode):
    red = Image.new("RGB", (SIZE, SIZE), (200, 30, 60))
    if mode == "LAB":
        spaces = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        ImageCms.profileToProfile(red, *spaces, outputMode="LAB").save(tmp_path / "a.tif")
        picture = Image.open(tmp_path / "a.tif")
        assert picture.mode == "LAB"
    else:
        picture = red.convert(mode)
    torch.testing.assert_close(
        pixels_of(picture, SIZE)[:, 5, 5].int(), torch.tensor([200, 30, 60]).int(), atol=4, rtol=0
    )


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.png", "a.webp"])
def test_of_several_frames_the_first_counts(tmp_path, name):
    frames = [Image.new("RGB", (SIZE, SIZE), color) for color in ("red", "blue", "green")]
    options = {"lossless": True} if name == "a.webp" else {}
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
    assert Image.open(tmp_path / name).n_frames == 3
    assert read(tmp_path / name)[:, 5, 5].tolist() == [255, 0, 0]


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("name", "side"), [("a.jpg", 160), ("a.png", 16), ("a.webp", 16), ("a.tif", 16)])
def test_pictures_are_turned_upright(tmp_path, orientation, name, side):
    """One whose top left is red and top right green, stored as a camera would that was held in this way; the large JPEG
    is decoded at an eighth of its size."""
    upright = np.zeros((side, 2 * side, 3), np.uint8)
    upright[: side // 2, side // 2 : side, 0] = 255
    upright[: side // 2, side : 3 * side // 2, 1] = 255
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],  # a quarter turn against the clock; the viewer turns it back
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / name, exif=exif(orientation))
    pixels = read(tmp_path / name)
    assert pixels[:, 3, 3].argmax() == 0
    assert pixels[:, 3, 12].argmax() == 1
    assert pixels[:, 3, 3].max() > 150
    assert pixels[:, 3, 12].max() > 150
    assert pixels[:, 12].max() < 60


def test_broken_exif_turns_nothing(tmp_path):
    Image.new("RGB", (SIZE, SIZE), "red").save(tmp_path / "a.jpg", exif=b"Exif\0\0no such thing")
    assert read(tmp_path / "a.jpg")[0].min() > 250


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(PictureError, match=r"Cannot decode the picture .*cut\.jpg: image file is truncated"):
        read(path)
    with pytest.raises(PictureError, match="Cannot decode the picture given: its floats"):
        pixels_of(Image.new("F", (4, 4), 7.0), 4)


@pytest.mark.parametrize("mode", ["LAB", "HSV", "CMYK", "PA", "La", "I;16B"])
def test_pictures_of_every_mode_become_gray(mode):
    image = Image.new(mode, (9, 9))
    gray, color = pixels_of(image, 4, channels=1), pixels_of(image, 4, channels=3)
    expected = Image.fromarray(color.permute(1, 2, 0).numpy()).convert("L")
    assert (gray[0].int() - torch.from_numpy(np.array(expected)).int()).abs().max() <= 1


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(PictureError, match="it has no pixels"):
        pixels_of(Image.new("RGB", (0, 5)), 4)
