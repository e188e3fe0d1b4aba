"""Pictures in tar files, as webdataset writes them: an index of all of them, then each is read where it lies.

The index is made of the headers alone. So pictures come in any order, and a run that goes on where it was cut off needs
no more than its position.
"""

import io
import os
import tarfile
import time
from array import array
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..distributed.processes import print_once
from ..errors import TrainerError, printable
from .class_folders import reason_against, suffixes
from .encoded import BLOCK, FIRST_SECONDS, LINE_SECONDS
from .left_out import CUT_OFF, HIDDEN, NO_FILE, LeftOut
from .picture_sources import LEAVE_OUT, Sources
from .shard_names import compressed_error

MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")  # gzip, bzip2, xz, zstd, lz4
OPEN_FILES = 128  # of a process; a cluster's file system takes long to open one


class TarPictures(Sources):
    """Pictures in tar files, 28 bytes each: a million take no more than 27 MiB, which processes share."""

    cure = f"Write its shard again, or {LEAVE_OUT}."

    def __init__(
        self, paths: list[tuple[str, int]], shards: Tensor, headers: Tensor, starts: Tensor, sizes: Tensor
    ) -> None:
        self.paths = paths  # and when each was written, in nanoseconds
        self.shards = shards  # int32, the place in `paths`
        self.headers = headers  # int64, where the first header of the member begins
        self.starts = starts  # int64, where its content begins
        self.sizes = sizes  # int64, in bytes

    def __len__(self) -> int:
        return len(self.shards)

    def select(self, indices: Tensor) -> "TarPictures":
        columns = (self.shards, self.headers, self.starts, self.sizes)
        return TarPictures(self.paths, *(column[indices] for column in columns))

    def open(self, index: int) -> Image.Image:
        file = _opened(*self.paths[self.shards[index]])
        content = os.pread(file.descriptor, int(self.sizes[index]), int(self.starts[index]))
        return Image.open(io.BytesIO(content))

    def name(self, index: int) -> str:
        """The shard, and the member's name, which is read again."""
        path, _ = self.paths[self.shards[index]]
        try:
            with open(path, "rb") as file:
                file.seek(int(self.headers[index]))
                with tarfile.open(fileobj=file, mode="r:") as tar:
                    member = tar.next()
        except (OSError, tarfile.TarError):
            member = None
        return printable(f"{path}/{member.name if member else f'byte {int(self.starts[index])}'}")


class _OpenFile:
    """Closed when nobody reads from it any more, whatever thread that is."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@lru_cache(maxsize=OPEN_FILES)
def _opened(path: str, changed: int) -> _OpenFile:
    """Opened by the process that reads first, and kept. A file that has changed since is another one."""
    return _OpenFile(path)


def index_shards(paths: Sequence[Path], use_cut_off: bool, left_out: LeftOut) -> TarPictures:
    """The pictures in the shards, shard by shard, in the order in which they lie.

    Raises TrainerError for a shard that is no plain tar file, for shards without pictures and, unless what is whole of
    it is to be used, for one that is cut off.
    """
    index = _Index()
    accepted = suffixes()
    for number, path in enumerate(paths):
        before = len(index.shards)
        fault = _read_headers(path, number, accepted, index, left_out)
        whole = len(index.shards) - before
        found = f"{path} is cut off or damaged: {fault}. It has {whole:,} whole picture{'s' * (whole != 1)}"
        if fault and not use_cut_off:
            raise TrainerError(f"{found}. Fetch it again, or use what is whole: data.corrupt=skip.")
        if fault:
            left_out.add(CUT_OFF, path.name)
            print_once(f"{found}, which are used.")
    return TarPictures([(str(path), path.stat().st_mtime_ns) for path in paths], *index.columns())


class _Index:
    """Columns that grow, without a Python object for each picture."""

    def __init__(self) -> None:
        self.shards = array("i")
        self.headers, self.starts, self.sizes = array("q"), array("q"), array("q")
        self.due = time.monotonic() + FIRST_SECONDS

    def add(self, shard: int, member: tarfile.TarInfo) -> None:
        self.shards.append(shard)
        self.headers.append(member.offset)
        self.starts.append(member.offset_data)
        self.sizes.append(member.size)
        if len(self.shards) % BLOCK == 0 and time.monotonic() >= self.due:
            print_once(f"Indexing shards: {len(self.shards):,} pictures, in shard {shard + 1:,} ...")
            self.due = time.monotonic() + LINE_SECONDS

    def columns(self) -> list[Tensor]:
        columns = (self.shards, torch.int32), *((each, torch.int64) for each in (self.headers, self.starts, self.sizes))
        return [torch.frombuffer(values, dtype=dtype) if values else torch.empty(0) for values, dtype in columns]


def _read_headers(path: Path, shard: int, accepted: set[str], index: _Index, left_out: LeftOut) -> str:
    """Adds the pictures of a shard; returns what shows that it is not whole, or nothing."""
    size = path.stat().st_size
    tar: tarfile.TarFile | None = None
    try:
        with tarfile.open(path, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep all of them
                if member.offset_data + member.size > size:
                    return f"it ends within {printable(member.name)}"
                if reason := _reason_against(member, accepted):
                    left_out.add(reason, member.name)
                elif not member.isdir():
                    index.add(shard, member)
            return _fault_at_end(path, tar.offset)
    except tarfile.ReadError as error:
        if tar is None and size >= tarfile.BLOCKSIZE:
            raise _no_tar(path) from None
        return str(error)
    except OSError as error:
        raise TrainerError(f"Cannot read {path}: {error.strerror}.") from None


def _reason_against(member: tarfile.TarInfo, accepted: set[str]) -> str | None:
    *folders, name = [part for part in member.name.split("/") if part not in ("", ".", "..")] or [""]
    if member.isdir():
        return None
    if any(folder.startswith(".") for folder in folders):
        return HIDDEN
    return reason_against(name, accepted) or (None if member.isreg() else NO_FILE)


def _fault_at_end(path: Path, end: int) -> str:
    """A whole tar file ends in blocks of zeros."""
    with open(path, "rb") as file:
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        return "the mark of its end is missing"
    return f"the header at byte {end:,} is none" if any(block) else ""


def _no_tar(path: Path) -> TrainerError:
    with open(path, "rb") as file:
        start = file.read(8)
    return compressed_error(path) if start.startswith(MAGIC) else TrainerError(f"{path} is no tar file.")
