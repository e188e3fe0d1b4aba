"""README.md and docs/: what a page shows runs, from its top to its end, as it stands there.

A comment right before a block says what else becomes of it:

    <!-- not run: REASON -->    NOT_RUN lists all of these
    <!-- slow -->               it takes more than 20 s
    <!-- file: NAME -->         it is also kept under this name, and later blocks may use it
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
NOT_RUN = {  # by the page and the block's first words
    "README.md: pip install torch setuptools": "installs, downloads, and runs these tests",
    "benchmarks.md: make figures": "measures for an hour",
    "benchmarks.md: make pretrain": "downloads Fashion-MNIST",
    "benchmarks.md: python benchmarks/against.py main": "builds another commit, for minutes",
    "design.md: PYTHONPATH=tests python tests/emulation/mutate.py --minutes": "takes from minutes to an hour",
    "detection.md: python -m ortho_kernels.trainer.detect RUN": "needs PASCAL VOC and a GPU",
    "detection.md: python -m ortho_kernels.trainer.detect random": "takes minutes",
    "detection.md: from torchvision.datasets import VOCDetection": "downloads PASCAL VOC, 3 GB",
    "gpu.md: make gpu": "needs a card",
    "gpu.md: python benchmarks/gpu_day_figures.py benchmarks/results/gpu_day --csv": "needs a card",
    "gpu.md: export NVCC_APPEND_FLAGS=-DORTHO_LOADERS TORCH_CUDA_ARCH_LIST=9.0": "needs a card",
    "gpu.md: python -m ortho_kernels.doctor --gpu": "needs a card",
    "gpu.md: export PYTORCH_NO_CUDA_MEMORY_CACHING=1 ORTHO_KERNELS_BACKEND=cuda": "needs a card",
    "gpu.md: python -m ortho_kernels.tune --seconds": "needs a card",
    "gpu.md: python -m benchmarks.gpu.penalties --model": "needs a card",
    "map.md: python -m ortho_kernels.trainer.map experiment=quick/map": "takes an hour",
    "mae.md: python -m ortho_kernels.trainer -m": "takes an hour",
    "many_machines.md: torchrun --nnodes=2 --nproc-per-node=8 --rdzv-backend=c10d": "needs two machines",
    "many_machines.md: torchrun --nnodes=1 --nproc-per-node=8 -m": "needs two machines",
    "many_machines.md: python -m ortho_kernels.trainer -m": "needs SLURM",
    "penalty.md: model = peft.get_peft_model(model, peft.LoraConfig(r=8,": "needs a pretrained model",
    "propagation.md: python -m ortho_kernels.trainer.propagation backbone=resnet18,vit_tiny": "needs a folder of pictures",
    "torch.md: model.cuda()": "needs a card",
    "study.md: python -m ortho_kernels.trainer -m": "takes up to an hour",
    "trainer.md: python -m ortho_kernels.trainer data=imagefolder": "needs a folder of pictures",
    "trainer.md: python -m ortho_kernels.trainer experiment=paper/cifar100/byol_resnet18": (
        "downloads CIFAR-100, and trains for days"
    ),
    "transfer.md: python -m ortho_kernels.trainer.transfer RUN": "downloads CIFAR-10 and Food-101",
    "views.md: python -m ortho_kernels.trainer data=imagefolder": "needs a folder of pictures",
}
SHOWN = {"toml", "text"}  # languages of blocks that are there to be read
BLOCK = re.compile(r"(?:^<!-- (?P<note>.+) -->\n)?^```(?P<language>\w*)\n(?P<code>(?:.*\n)*?)```$", re.MULTILINE)


class Block(NamedTuple):
    page: Path
    line: int
    note: str
    language: str
    code: str

    @property
    def reason_against(self) -> str:
        """Why it is not run; empty if it is."""
        return self.note.removeprefix("not run: ") if self.note.startswith("not run: ") else ""

    def __str__(self) -> str:
        first = self.code.partition("\n")[0].partition("  #")[0]
        return f"{self.page.name}: {' '.join(first.split()[:4])}"


def blocks_of(page):
    text = page.read_text()
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code"))
        yield Block(page, line, found["note"] or "", found["language"], found["code"])


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def cases():
    """Every page, and once more with its slow blocks."""
    for page in PAGES:
        blocks = [block for block in blocks_of(page) if block.language not in SHOWN and not block.reason_against]
        quick = [block for block in blocks if block.note != "slow"]
        if quick:
            yield pytest.param(quick, id=page.name)
        if quick != blocks:
            yield pytest.param(blocks, id=f"{page.name}-slow", marks=pytest.mark.slow)


@pytest.mark.parametrize("blocks", list(cases()))
def test_page(blocks, tmp_path, monkeypatch):
    """The Python blocks of a page share their names, and all blocks share a folder."""
    monkeypatch.chdir(tmp_path)
    for folder in ("benchmarks", "csrc"):  # they write beside themselves
        shutil.copytree(ROOT / folder, folder, ignore=shutil.ignore_patterns("results", "__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", ".")
    names = {"__name__": "__main__"}
    for block in blocks:
        if block.note.startswith("file: "):
            (tmp_path / block.note.removeprefix("file: ")).write_text(block.code)
        if block.language == "python":
            exec(compile("\n" * block.line + block.code, str(block.page), "exec"), names)
        else:
            run_shell(block)


def run_shell(block):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    outside = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_XDIST")}
    environment = {**outside, "PATH": path, "PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": "triton"}
    command = ["bash", "-euo", "pipefail", "-c", block.code]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{block.page.name}, line {block.line + 1}:\n{block.code}\n{done.stdout[-4000:]}"


def test_what_is_not_run():
    found = {str(block): block.reason_against for block in BLOCKS if block.reason_against}
    assert found == NOT_RUN


def test_every_block_says_its_language():
    assert {block.language for block in BLOCKS} <= {"python", "sh"} | SHOWN


def test_every_note_is_understood():
    notes = {block.note for block in BLOCKS if not block.reason_against}
    assert {note for note in notes if not note.startswith("file: ")} <= {"", "slow"}


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_named_files_are_there():
    made = ("benchmarks/results", "ortho_kernels/_cuda")  # by measuring, or by building
    for page in PAGES:
        for name in re.findall(r"`((?:ortho_kernels|csrc|tests|benchmarks|docs)/[\w./]+)`", page.read_text()):
            assert name.startswith(made) or (ROOT / name).exists(), f"{page.name}: {name}"


def test_the_readme_is_one_page():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 90
    assert len(text.split()) <= 650
