"""`python -m ortho_kernels.trainer.speed key=value ...`: how fast pictures come, and how fast the model takes them.

The words are those of a training. Nothing is kept: it times the pipeline alone, part by part, and training steps on views
that are ready. So it shows which of the two a run will wait for, and says what to change.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: idle threads that spin slow small machines down

import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .command import with_flags
from .errors import TrainerError

if TYPE_CHECKING:
    from omegaconf import DictConfig

SECONDS = 3.0  # for each figure
LEAST = 3  # batches of a figure, however long they take
STEPS = 8  # of the model


def main(words: Sequence[str]) -> None:
    with_flags(words, _time)


def _time(words: Sequence[str], multirun: bool) -> None:
    if multirun:
        raise TrainerError("The speed of one configuration is measured: give one value of each option, and no -m.")
    from .config import load_config

    print(describe(measure(load_config([*words, "trainer.max_epochs=1000000", "trainer.max_steps=null"]))))


def measure(config: "DictConfig") -> dict[str, Any]:
    """Pictures a second of each part, and what they are measured on."""
    import torch

    from .data import load_splits
    from .distributed.processes import ALONE
    from .engine.settings import on_gpu, require_devices
    from .runs.pretrain import build_module, build_stream, instantiate, quieten_lightning

    quieten_lightning()
    require_devices(config.trainer)
    if config.trainer.strategy != "single":
        raise TrainerError("One process is measured: leave out trainer=ddp or fsdp2, and give its share of the batch.")
    splits = load_splits(instantiate(config.data), ALONE)
    stream = build_stream(config, splits, ALONE)
    module = build_module(config, splits, ALONE, steps=len(stream) // config.trainer.accumulate)
    device = torch.device("cuda" if on_gpu(config.trainer) else "cpu")
    views = module.views.to(device)
    size, threads = config.trainer.batch_size, torch.get_num_threads()

    def prepare(number: int) -> Any:
        return stream.pipeline.prepare(stream.images, stream.order.part(permutation, number), number, stream.order)

    def finish(number: int) -> Any:
        return _done(views(on_device, number), device)

    permutation = stream.order.epoch(0)
    numbers = range(stream.order.per_epoch)
    torch.set_num_threads(1)  # as in a worker process
    prepared = rate(map(prepare, itertools.cycle(numbers)), size)
    torch.set_num_threads(threads)
    on_device = _move(prepare(0), device)
    finished = rate(map(finish, itertools.count()), size)
    ready = views(on_device, 0)
    both = rate((_done(views(_move(p, device), n), device) for p, n in stream), size, warm=2 * stream.workers + 1)
    return {
        "data": config.data.name,
        "views": [view.size for view in views.plan],
        "batch_size": size,
        "workers": stream.workers,
        "pipeline": type(stream.pipeline).__name__,
        "device": str(device),
        "prepared": prepared,
        "finished": finished,
        "both": both,
        "model": model_rate(config, module, stream, ready),
    }


def model_rate(config: "DictConfig", module: Any, stream: Any, ready: list[Any]) -> float:
    """Pictures a second of training steps, the penalty included, on the same views over and over."""
    import contextlib
    import io

    from .data import Splits
    from .distributed.processes import ALONE
    from .runs.folders import Run
    from .runs.pretrain import fit

    module.steps = STEPS
    held = held_stream(stream, ready, STEPS * config.trainer.accumulate)
    config.trainer.tensorboard, config.trainer.wandb, config.evaluation.every = False, None, None
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        return fit(config, Run(Path(folder)), module, held, Splits(), ALONE, []).timings()["images_per_second"]


def held_stream(stream: Any, pictures: Any, batches: int) -> Any:
    """A stream of these pictures over and over, in the place of another."""
    from .data.stream import BatchStream

    class HeldStream(BatchStream):
        def _prepared(self, numbers: range) -> Iterable[Any]:
            return itertools.repeat(pictures, len(numbers))

    return HeldStream(stream.images, stream.order, batches, workers=0, pipeline=stream.pipeline)


def rate(batches: Iterator[Any], size: int, warm: int = 1, clock: Callable[[], float] = time.perf_counter) -> float:
    """Pictures a second, after `warm` batches."""
    for _ in itertools.islice(batches, warm):
        pass
    began = clock()
    for count in itertools.count(1):
        next(batches)
        if count >= LEAST and clock() - began > SECONDS:
            break
    return count * size / (clock() - began)


def _move(pictures: Any, device: Any) -> Any:
    if isinstance(pictures, list):
        return [view.to(device, non_blocking=True) for view in pictures]
    return pictures.to(device, non_blocking=True)


def _done(views: Any, device: Any) -> Any:
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
    return views


WORK = {  # what is done before pictures go to the device
    "DevicePipeline": "read pictures",
    "WorkersPipeline": "decode and cut crops",
    "OwnPipeline": "decode and transform",
}


def describe(found: dict[str, Any]) -> str:
    """The figures as a table, and what to change."""
    sizes = ", ".join(map(str, found["views"]))
    title = f"data={found['data']}, views of {sizes} pixels, batches of {found['batch_size']}, on {found['device']}"
    workers = found["workers"]
    processes = f"{workers} worker process{'es' * (workers != 1)}" if workers else "no worker process"
    rows = [
        (f"{WORK[found['pipeline']]}, on one core", found["prepared"]),
        (f"views on {found['device']}", found["finished"]),
        (f"both together, with {processes}", found["both"]),
        ("training steps on views that are ready", found["model"]),
    ]
    lines = [f"{name:42}{value:10.0f} pictures/s{1e3 / value:10.3f} ms a picture" for name, value in rows]
    return "\n".join([title, *lines, "", hint(found)])


def hint(found: dict[str, Any]) -> str:
    both, model, workers = found["both"], found["model"], found["workers"]
    if both >= model:
        return f"The model is the bottleneck: pictures come {both / model:.1f} times as fast as it takes them."
    start = f"The pipeline is the bottleneck: the model takes pictures {model / both:.1f} times as fast as they come."
    cores = os.cpu_count() or 1
    if found["finished"] < max(workers, 1) * found["prepared"]:
        return f"{start} Most time goes into views on {found['device']}: lower data.views.blur or data.size, or take a GPU."
    if 0 < workers < cores - 1:
        return f"{start} Most time goes into decoding: raise trainer.workers={workers} up to the {cores} cores."
    return (
        f"{start} Most time goes into decoding: shrink the files to about twice data.size, or decode them once into memory "
        "with data.pipeline=device and data.memory_gib=GIB."
    )


if __name__ == "__main__":
    main(sys.argv[1:])
