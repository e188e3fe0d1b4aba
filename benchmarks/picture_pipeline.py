"""Pictures a second of the trainer's pipeline and of torchvision's v2 transforms, in one interleaved run.

    python -m benchmarks.picture_pipeline --rounds 5

A generated folder of JPEGs, 500 x 375 pixels and 100 KB each, becomes two normalized views of 224 x 224 pixels, by two
worker processes. torchvision decodes a picture once with `decode_jpeg` and transforms it in bytes. Prints ratios of the
medians over rounds, and how long processors were busy: that is less disturbed by what else a machine does.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from ortho_kernels.trainer.config import load_config
from ortho_kernels.trainer.data import Splits, load_splits
from ortho_kernels.trainer.data.colors import blur, color_jitter
from ortho_kernels.trainer.data.crops import cut
from ortho_kernels.trainer.data.decoding import load_upright, to_tensor
from ortho_kernels.trainer.data.views import Views
from ortho_kernels.trainer.distributed.processes import ALONE
from ortho_kernels.trainer.runs.pretrain import build_stream, instantiate, planned_views

from .results import FOLDER, machine, origin, write_csv

WIDTH, HEIGHT, SIZE = 500, 375, 224
WORKERS = 2
WARM = 2 * WORKERS + 1  # batches; as many are ready before they are taken
SETS = {  # what is left out of SimCLR's transforms
    "SimCLR's whole set": [],
    "without blur": ["data.views.blur=0"],
    "crops and flips": ["data.views.blur=0", "data.views.jitter=0", "data.views.gray=0"],
}
STRENGTHS = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
WORDS = [
    *("data=imagefolder", f"data.size={SIZE}", "data.decode_size=256", "data.memory_gib=0", "method=simclr"),
    *("data.views.min_area=0.08", *(f"data.views.{name}={value}" for name, value in STRENGTHS.items())),
    f"trainer.workers={WORKERS}",
]


def write_pictures(folder: Path, count: int) -> None:
    """Smooth shapes, texture and noise: as large as photographs are as files, and as slow to decode."""
    generator = torch.Generator().manual_seed(0)
    for split in ("train", "test"):
        (folder / split / "any").mkdir(parents=True)
    for number in range(count):
        picture = torch.zeros(1, 3, HEIGHT, WIDTH)
        for lines in (3, 6, 12, 25, 50, 100, 200, HEIGHT):
            noise = torch.randn(1, 3, lines, lines * WIDTH // HEIGHT, generator=generator) / lines**0.35
            picture += F.interpolate(noise, (HEIGHT, WIDTH), mode="bicubic")
        picture = (0.45 + 0.2 * (picture[0] - picture.mean()) / picture.std()).clamp(0, 1)
        pixels = picture.mul(255).byte().permute(1, 2, 0).contiguous().numpy()
        splits = ("train", "test") if number < 2 else ("train",)
        for split in splits:
            Image.fromarray(pixels).save(folder / split / "any" / f"{number:04}.jpg", quality=94)


class Pictures(Dataset):
    """torchvision's way: each picture decoded once, two views of it by v2 transforms in bytes, then normalized floats."""

    def __init__(self, folder: Path, words: list[str], mean: list[float], std: list[float], count: int) -> None:
        self.paths = sorted(str(path) for path in (folder / "train" / "any").iterdir())
        self.count = count
        left_out = {word.partition("=")[0].rpartition(".")[2] for word in words}
        steps: list[torch.nn.Module] = [
            v2.RandomResizedCrop(SIZE, scale=(0.08, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
        ]
        if "jitter" not in left_out:
            steps += [v2.RandomApply([v2.ColorJitter(**STRENGTHS)], 0.8), v2.RandomGrayscale(0.2)]
        if "blur" not in left_out:
            steps.append(v2.RandomApply([v2.GaussianBlur(23, (0.1, 2.0))], 0.5))
        self.transform = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        picture = decode_jpeg(read_file(self.paths[index % len(self.paths)]), mode=ImageReadMode.RGB)
        return self.transform(picture), self.transform(picture)


def our_batches(splits: Splits, words: list[str], views: Views, batch_size: int, batches: int) -> Iterator[int]:
    config = load_config([*words, f"trainer.batch_size={batch_size}", f"trainer.max_steps={batches}"])
    for pictures, number in build_stream(config, splits, ALONE):
        yield len(views(pictures, number)[0])


def their_batches(pictures: Pictures, batch_size: int) -> Iterator[int]:
    for first, _ in DataLoader(pictures, batch_size, num_workers=WORKERS):
        yield len(first)


def rate(batches: Iterator[int], timed: int) -> tuple[float, float]:
    """Pictures a second, and the seconds of processors a picture, of `timed` batches that more follow."""
    for _ in range(WARM):
        next(batches)
    began, busy = time.perf_counter(), busy_seconds()
    pictures = sum(next(batches) for _ in range(timed))
    result = pictures / (time.perf_counter() - began), (busy_seconds() - busy) / pictures
    for _ in batches:
        pass
    return result


def busy_seconds() -> float:
    """Of processors, in this process and its workers (Linux)."""
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    ticks = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in pids]
    return sum(int(tick) for pair in ticks for tick in pair) / os.sysconf("SC_CLK_TCK")


def check(folder: Path) -> None:
    """That ours gives what torchvision gives: the same pixels and crops, jitter and blur up to rounding."""
    path = str(folder / "train" / "any" / "0000.jpg")
    with Image.open(path) as image:
        picture = to_tensor(load_upright(image, 3))
    torch.testing.assert_close(picture, decode_jpeg(read_file(path), mode=ImageReadMode.RGB), atol=0, rtol=0)
    crop = torch.empty(3, SIZE, SIZE, dtype=torch.uint8)
    cut(picture, (20, 31, 300, 260), True, crop)
    theirs = functional.resized_crop(picture, 20, 31, 300, 260, [SIZE, SIZE], antialias=True)
    torch.testing.assert_close(crop, theirs.flip(-1), atol=0, rtol=0)
    amounts = (1.4, 0.7, 1.5, 0.1)
    toned = theirs
    adjustments = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)
    for adjust, amount in zip((*adjustments, functional.adjust_hue), amounts, strict=True):
        toned = adjust(toned, amount)
    ours = color_jitter(theirs[None] / 255, *(torch.full((1, 1, 1, 1), amount) for amount in amounts))[0] * 255
    assert (ours - toned).abs().mean() < 1.5, "jitter differs from torchvision's by more than its rounding"
    inner = slice(12, -12)  # their border is reflected, ours repeated
    blurred = functional.gaussian_blur(theirs, [23, 23], [1.2, 1.2])[:, inner, inner]
    ours = blur(theirs[None] / 255, torch.tensor([1.2]).numpy())[0, :, inner, inner] * 255
    assert (ours - blurred).abs().max() < 2, "blur differs from torchvision's by more than its rounding"


def main(rounds: int, batches: int, batch_size: int) -> None:
    total = WARM + batches + WARM
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder, batch_size * 4)
        check(folder)
        words = [*WORDS, f"data.root={folder}"]
        splits = load_splits(instantiate(load_config(words).data), ALONE)
        sample = splits.train.sample()
        size = statistics.mean(path.stat().st_size for path in (folder / "train" / "any").iterdir())
        print(f"{machine()}; {rounds} rounds of {batches} batches of {batch_size}; files of {size / 1000:.0f} KB")
        found: dict[str, list[list[tuple[float, float]]]] = {title: [[], []] for title in SETS}
        for _ in range(rounds):
            for title, less in SETS.items():
                views = Views(planned_views(load_config([*words, *less])), SIZE, sample, seed=0)
                mean, std = views.mean.flatten().tolist(), views.std.flatten().tolist()
                theirs = Pictures(folder, less, mean, std, total * batch_size)
                found[title][0].append(rate(our_batches(splits, [*words, *less], views, batch_size, total), batches))
                found[title][1].append(rate(their_batches(theirs, batch_size), batches))
    rows = []
    for title, runs in found.items():
        (ours, our_busy), (theirs_, their_busy) = (
            [statistics.median(column) for column in zip(*each, strict=True)] for each in runs
        )
        print(
            f"{title:20} {ours:7.1f} pictures/s, torchvision {theirs_:7.1f}: {ours / theirs_:5.2f}x; "
            f"{1e3 * our_busy:6.2f} ms of a processor a picture, {1e3 * their_busy:6.2f}: {their_busy / our_busy:5.2f}x"
        )
        figures = {"ours": f"{ours:.1f}", "torchvision": f"{theirs_:.1f}", "ratio": f"{ours / theirs_:.3f}"}
        busy = {"processor_ratio": f"{their_busy / our_busy:.3f}"}
        rows.append({"views": title, **figures, **busy, "rounds": rounds, **origin()})
    print(f"written: {write_csv(FOLDER / 'picture_pipeline.csv', rows)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32)
    main(**vars(parser.parse_args()))
