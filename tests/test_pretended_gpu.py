"""The pretended GPU computes as a CPU does, and notices what a GPU would."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from pretended_gpu import PretendedGpu, only_without_a_gpu
from torch import nn
from waits import Waits

from ortho_kernels import OrthogonalityPenalty

pytestmark = only_without_a_gpu


def trained(device):
    """The weights of a small network after two steps with a penalty, as a list of numbers."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    penalty = OrthogonalityPenalty(network, "srip", gamma=0.1)
    first = network[0].weight
    network.to(device)
    assert network[0].weight is first
    assert first.device.type == device
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    images, labels = torch.randn(8, 2, 4, 4), torch.arange(8) % 3
    for _ in range(2):
        loss = F.cross_entropy(network(images.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        penalty.accumulate_gradients()
        optimizer.step()
    return [parameter.tolist() for parameter in network.parameters()]


def test_a_training_on_it_is_that_of_the_cpu():
    with PretendedGpu():
        on_gpu = trained("cuda")
    assert on_gpu == trained("cpu")


def other_devices(x):
    return {
        "a sum": lambda: x + torch.ones(3),
        "a product": lambda: x @ torch.ones(3, 2),
        "a stack with a number": lambda: torch.stack([x[0, 0], torch.tensor(1.0)]),
        "the device's in the host's": lambda: torch.zeros(()).add_(x[0, 0]),
        "the device's places of the host's": lambda: torch.ones(3)[torch.tensor([0], device="cuda")],
        "a list": lambda: torch._foreach_add([x], [torch.ones(2, 3)]),
    }


@pytest.mark.parametrize("name", other_devices(torch.ones(2, 3)))
def test_tensors_of_two_devices_do_not_meet(name):
    with PretendedGpu(), pytest.raises(RuntimeError, match="cuda:0 and some on cpu"):
        other_devices(torch.ones(2, 3, device="cuda"))[name]()


def test_what_a_gpu_takes_of_the_host_it_takes():
    with PretendedGpu():
        x = torch.arange(6.0, device="cuda").view(2, 3)
        assert (x * torch.tensor(2.0)).tolist() == [[0, 2, 4], [6, 8, 10]]
        assert x[torch.tensor([1])].tolist() == [[3, 4, 5]]
        assert x[torch.tensor([True, False])].tolist() == [[0, 1, 2]]
        host = torch.zeros(2, 3)
        host[0] = x[1]
        assert host.tolist() == [[3, 4, 5], [0, 0, 0]]
        assert x.new_tensor([7]).device.type == torch.zeros_like(x).device.type == "cuda"


def test_neither_generators_nor_arrays_are_of_another_device():
    with PretendedGpu():
        with pytest.raises(RuntimeError, match="expected a generator of cuda"):
            torch.rand(3, device="cuda", generator=torch.Generator().manual_seed(0))
        with pytest.raises(TypeError, match="copy the tensor to host memory first"):
            torch.ones(3, device="cuda").numpy()


@pytest.mark.skipif(torch.version.cuda is None, reason="torch is not built for CUDA, and does not know its kernels")
def test_an_operation_needs_a_kernel_for_cuda():
    library = torch.library.Library("aten", "FRAGMENT")
    library.define("of_the_cpu_alone(Tensor x) -> Tensor")
    library.impl("of_the_cpu_alone", lambda x: x + 1, "CPU")
    with PretendedGpu(), pytest.raises(RuntimeError, match="has no kernel for CUDA"):
        torch.ops.aten.of_the_cpu_alone(torch.ones(2, device="cuda"))


@pytest.mark.parametrize("copy_to", ["to", "copy_"])
def test_a_copy_to_the_host_is_not_there_before_it_is_waited_for(copy_to):
    with PretendedGpu():
        x, host = torch.ones(2, device="cuda"), torch.zeros(2)
        if copy_to == "to":
            host = x.to("cpu", non_blocking=True)
        else:
            host.copy_(x, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        assert host.isnan().all()
        assert not event.query()
        event.synchronize()
        assert host.tolist() == [1, 1]


def test_pinned_memory_keeps_its_values_until_they_are_copied():
    with PretendedGpu():
        host = torch.ones(2).pin_memory()
        total = host.to("cuda", non_blocking=True).sum()
        host.zero_()
        with pytest.raises(AssertionError, match="written to while"):
            total.item()


@pytest.mark.parametrize(
    ("awaited", "operation"),
    [
        (lambda x: torch.ones(2).to("cuda"), "_to_copy"),
        (lambda x: torch.ones(2).to("cuda", non_blocking=True), "_to_copy"),
        (lambda x: x.copy_(torch.ones(2)), "copy_"),
        (lambda x: torch.ones(2).copy_(x), "copy_"),
        (lambda x: x.to("cpu"), "_to_copy"),
        (lambda x: x[torch.tensor([0])], "index"),
    ],
)
def test_copies_that_are_waited_for_are_seen(awaited, operation):
    with PretendedGpu():
        x = torch.ones(2, device="cuda")
        with Waits() as waits:
            awaited(x)
    assert any(f"aten.{operation} at test_pretended_gpu.py:" in line for line in waits.seen)


def test_copies_that_nobody_waits_for_are_none():
    with PretendedGpu():
        x = torch.ones(2, device="cuda")
        host = torch.ones(2).pin_memory()
        with Waits() as waits:
            host.to("cuda", non_blocking=True)
            x.copy_(host, non_blocking=True)
            x.to("cpu", non_blocking=True)
            x.to(torch.bfloat16)
    assert waits.seen == []


def test_autocast_casts_as_on_a_gpu():
    with PretendedGpu():
        x = torch.ones(2, 2, device="cuda")
        with torch.autocast("cuda", dtype=torch.bfloat16):
            product = x @ x
            assert (product.dtype, product.softmax(1).dtype) == (torch.bfloat16, torch.float32)
        assert (x @ x).dtype == torch.float32


def test_copies_and_files_of_a_network():
    with PretendedGpu():
        network = nn.Linear(2, 2).to("cuda")
        copied = copy.deepcopy(network)
        assert isinstance(copied.weight, nn.Parameter)
        assert copied.weight.device.type == "cuda"
        file = io.BytesIO()
        torch.save(network.state_dict(), file)
        file.seek(0)
        copied.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
        assert torch.equal(copied.weight, network.weight)
        weight = network.weight
        assert network.to("cuda").double().weight is weight
        assert weight.dtype is torch.float64
        assert type(network.cpu().weight) is nn.Parameter


def test_afterwards_there_is_no_gpu():
    with PretendedGpu():
        assert torch.cuda.is_available()
    assert not torch.cuda.is_available()
    assert torch.tensor(1.0).device.type == "cpu"
