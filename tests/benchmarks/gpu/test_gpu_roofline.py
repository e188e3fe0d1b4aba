"""The roofline model's arithmetic: what it counts is what the plan does, and what it prints says that it is a model."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("ortho_kernels._introspect", reason="the planner is not built")

from benchmarks import arguments, measure, model_shapes, rivals
from benchmarks.gpu import kernel_model, loop_model, roofline
from benchmarks.gpu.cards import CARDS
from benchmarks.gpu.kernel_model import Launch, Matrix

H100 = CARDS["h100"]


@pytest.mark.parametrize("model", ["resnet18", "resnet50", "vit_small", "vit_large"])
def test_shapes_are_those_of_the_libraries(model):
    libraries = {"resnet": "torchvision", "vit_": "timm"}
    library = pytest.importorskip(next(name for start, name in libraries.items() if model.startswith(start)))
    with torch.device("meta"):
        if library.__name__ == "timm":
            module = library.create_model(f"{model}_patch16_224")
        else:
            module = getattr(library.models, model)()
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    shapes = [tuple(part.weight.shape) for part in module.modules() if isinstance(part, kinds)]
    if model == "resnet18":
        shapes[0] = (64, 3, 3, 3)  # the stem for small images
    assert model_shapes.MODELS[model]() == shapes


def test_transformers_have_the_weights_that_their_names_say():
    sizes = {name: sum(int(np.prod(shape)) for shape in make()) for name, make in model_shapes.MODELS.items()}
    assert sizes["transformer_1b"] == 16 * (2 * 2048 * 2048 + 2 * 512 * 2048 + 3 * 2048 * 8192)
    assert sizes["transformer_8b"] == 32 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 4096 * 14336)


def test_waves_and_balance():
    card = CARDS["h100"]
    blocks = 2 * card.multiprocessors
    even = Launch(blocks, {"tf32": np.full(3 * blocks, 10.0)}, 0, 0)
    assert (even.waves, even.last_wave, even.balance(card)) == (3, 1, pytest.approx(1))
    tail = Launch(blocks, {"tf32": np.full(3 * blocks + 1, 10.0)}, 0, 0)
    assert tail.last_wave == 1 / blocks
    assert tail.balance(card) == pytest.approx(
        tail.items / (7 * card.multiprocessors)
    )  # one has seven items, others six


def test_time_is_that_of_what_binds():
    one = Launch(1, {"tf32": np.array([1e9]), "float64": np.array([1e8])}, bytes=8, l2_bytes=8, barriers=2)
    alone = 1e9 / (H100.peak["tf32"] * H100.mma_share / H100.multiprocessors)
    alone += 1e8 / (H100.peak["float64"] / H100.multiprocessors)
    assert one.seconds(H100) == pytest.approx(kernel_model.LAUNCH_SECONDS + 2 * kernel_model.BARRIER_SECONDS + alone)
    flood = Launch(1, {"tf32": np.array([1.0])}, bytes=10**12, l2_bytes=0)
    assert flood.seconds(H100) == pytest.approx(kernel_model.LAUNCH_SECONDS + 1e12 / H100.bandwidth)


def test_tiles_cost_what_their_products_cost():
    """128 x 64: three tiles of R, of which two are on the diagonal; six products of bfloat16."""
    wide = Matrix(128, 128)
    forward, backward = kernel_model.soft_orthogonality([wide], H100)
    assert forward.flops == {"bfloat16": 6 * 2 * 128 * (64 * 64 + 2 * 3 * 32 * 32)}
    assert backward.flops == {"bfloat16": 6 * 2 * 128**3}
    assert kernel_model.soft_orthogonality([wide], H100, "high")[1].flops == {"tf32": 2 * 128**3}
    assert kernel_model.soft_orthogonality([wide], H100, "medium")[1].flops == {"bfloat16": 2 * 128**3}
    halves = kernel_model.soft_orthogonality([Matrix(128, 128, "bfloat16")], H100)
    assert [phase.flops for phase in halves] == [
        {"bfloat16": 2 * 128 * (64 * 64 + 2 * 3 * 32 * 32)},
        {"bfloat16": 2 * 2 * 128**3},
    ]


def test_small_orders_are_computed_in_double():
    forward, backward = kernel_model.soft_orthogonality([Matrix(64, 16)], H100)
    assert forward.flops == {"float64": 2 * 16 * 3 * 32 * 32}
    assert set(backward.flops) == {"bfloat16"}


def test_whole_matrices_are_counted_whatever_the_cuts():
    """The executed operations are those of the lower triangle's tiles, over the whole depth, rounded up to chunks."""
    for matrix in (Matrix(256, 4096), Matrix(128, 100_000), Matrix(1024, 1001)):
        forward, backward = kernel_model.soft_orthogonality([matrix], H100)
        side = matrix.order // 64
        depth = -(-matrix.depth // 16) * 16
        entries = 64 * 64 * (side * (side - 1) // 2) + 3 * 32 * 32 * side
        assert forward.flops == {"bfloat16": 6 * 2 * entries * depth}
        columns = -(-matrix.depth // 32) * 32
        assert backward.flops == {"bfloat16": 6 * 2 * matrix.order * matrix.order * columns}


def test_what_does_not_fit_l2_is_read_again():
    large = Matrix(4096, 14336)
    for phase in kernel_model.soft_orthogonality([large], H100):
        assert phase.bytes > phase.floor_bytes
    one, many = (kernel_model.soft_orthogonality([large], CARDS[card])[0].bytes for card in ("b200", "h100"))
    assert many >= one


@pytest.mark.parametrize("penalty", arguments.PENALTIES)
@pytest.mark.parametrize("card", ["a100", "h100", "h200", "b200"])
def test_resnet50_takes_two_launches_and_little_more_than_the_floor(card, penalty):
    weights = kernel_model.matrices(model_shapes.resnet50())
    phases = (
        kernel_model.soft_orthogonality(weights, CARDS[card])
        if penalty == "so"
        else kernel_model.srip(weights, CARDS[card])
    )
    assert [len(phase.launches) for phase in phases] == [1, 1]
    assert sum(phase.bytes for phase in phases) <= 1.3 * sum(phase.floor_bytes for phase in phases)
    assert all(launch.balance(CARDS[card]) <= 1 for phase in phases for launch in phase.launches)


def test_srip_passes_over_the_weights_once_an_application():
    weights = kernel_model.matrices([(4096, 14336)] * 4)
    W = sum(matrix.bytes for matrix in weights)
    forward, backward = kernel_model.srip(weights, H100, iterations=2)
    assert forward.bytes == 3 * W  # two of the vector, one of its adjoint
    assert backward.bytes == 2 * W
    assert forward.launches[0].barriers == 6


def test_srip_is_computed_in_two_floats_where_double_is_slow():
    matrix = Matrix(128, 1024)
    (double, _), (two_floats, _) = (kernel_model.srip([matrix], CARDS[card]) for card in ("a100", "rtx3090"))
    assert set(double.flops) == {"float64"}
    assert two_floats.flops["float32"] == 11 / 2 * double.flops["float64"]


@pytest.mark.parametrize("penalty", arguments.PENALTIES)
@pytest.mark.parametrize("loop", roofline.LOOPS)
def test_the_modeled_loop_is_the_loop(loop, penalty):
    shapes = [(8, 3, 3, 3), (16, 8, 3, 3), (10, 16), (30, 5)]
    operators = loop_model.operators(loop, penalty, shapes, torch.float32)
    weights = [torch.randn(shape, requires_grad=True) for shape in shapes]
    assert len(operators) == measure.launches(rivals.rival(loop, penalty), weights)


def test_the_loop_waits_for_the_host_or_the_gpu():
    quick = [loop_model.Operator("add", 12, 0)] * 100
    model = loop_model.predict(quick, H100, "float32")
    assert model.seconds == pytest.approx(100 * loop_model.HOST_SECONDS)
    assert model.graph_seconds == pytest.approx(100 * (loop_model.GAP_SECONDS + 12 / H100.bandwidth))
    slow = loop_model.predict([loop_model.Operator("mm", 12, 10**15)], H100, "float32")
    assert slow.seconds == slow.graph_seconds == pytest.approx(1e15 / H100.peak["float32"], rel=1e-3)


def test_products_are_counted():
    operators = loop_model.operators("eager", "so", [(64, 3, 7, 7)], torch.float32)
    # W W^T, and the gradient with respect to each of its factors.
    assert sum(each.flops for each in operators) == 3 * 2 * 64 * 64 * 147


def test_the_command(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    written, drawn = tmp_path / "roofline.json", tmp_path / "roofline.svg"
    arguments = [
        "--model",
        "resnet18",
        "--card",
        "a100",
        "--penalty",
        "so",
        "--json",
        str(written),
        "--chart",
        str(drawn),
    ]
    assert roofline.main(arguments) == 0
    text = capsys.readouterr().out
    assert text.startswith("MODEL: ")
    assert "A100" in text
    (step,) = json.loads(written.read_text())
    assert step["kind"] == "model, not measured"
    assert step["launches"] == 2
    assert step["modeled_seconds"] > 0
    assert "nothing was measured" in drawn.read_text()
    with pytest.raises(SystemExit):
        roofline.main(["--card", "voodoo2"])
