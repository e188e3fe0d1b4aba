"""The host's time, part by part."""

import json

import pytest
import torch

from benchmarks import host_time, model_shapes


@pytest.mark.parametrize("penalty", host_time.PENALTIES)
def test_every_part_is_timed(tmp_path, penalty):
    out = tmp_path / "found.jsonl"
    words = ["--device", "cpu", "--model", "resnet18", "--seconds", "0.2"]
    assert host_time.main([*words, "--penalty", penalty, "--out", str(out)]) == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    figures = {line["case"]: line for line in lines if "case" in line}
    assert all(0 < line["min"] <= line["value"] and line["unit"] == "us" for line in figures.values())
    names = {case.partition(" host ")[2] for case in figures}
    assert {"views", "forward", "forward of one", "gradients", "autograd alone", "autograd after others"} <= names
    assert {"backward", "accumulate"} <= names


def test_on_a_cpu_the_layers_are_narrow():
    shapes = [tuple(weight.shape) for weight in host_time.encoder_of("resnet50", "cpu").parameters()]
    given = model_shapes.MODELS["resnet50"]()
    assert [len(shape) for shape in shapes] == [len(shape) for shape in given]
    assert max(shape[0] for shape in shapes) == 2048 // 64


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_it_says_so(capsys):
    assert host_time.main(["--device", "cuda"]) == 1
    assert "Nothing was timed: no GPU that torch can use" in capsys.readouterr().err
