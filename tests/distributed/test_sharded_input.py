"""What is refused of sharded weights, in words that name the weight, and what is not."""

import contextlib

import pytest
import torch
from ranks import on_ranks
from torch import nn

from ortho_kernels import OrthogonalityPenalty, soft_orthogonality, srip, use_backend

W = torch.randn(6, 8, generator=torch.Generator().manual_seed(0)) / 3
EXPERTS = torch.stack([W, 2 * W, 3 * W])


def penalty(weight, kind="so"):
    return OrthogonalityPenalty({"layer.weight": weight}, kind, gamma=1.0)


def whole(tensor):
    return getattr(tensor, "full_tensor", lambda: tensor)()


def outcomes(rank, cases, *arguments):
    """What each case gives, or raises."""
    found = {}
    for name, case in cases(rank, *arguments).items():
        try:
            found[name] = case()
        except (TypeError, ValueError, RuntimeError) as error:
            found[name] = f"{type(error).__name__}: {error}"
    return found


def placements(rank):
    from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
    from torch.testing._internal.two_tensor import TwoTensor

    mesh = init_device_mesh("cpu", (2,))
    three = init_device_mesh("cpu", (2, 1, 1), mesh_dim_names=("a", "b", "c"))
    unnamed = init_device_mesh("cpu", (2, 1, 1))
    alone = DeviceMesh("cpu", [0])
    convolution = torch.randn(4, 3, 4, 4)

    class Subclass(DTensor):
        pass

    def of_subclass():
        weight = distribute_tensor(W, mesh, [Shard(0)])
        weight.__class__ = Subclass
        return penalty(weight)

    def local_on(placement):
        local = W if rank == 0 else W[:0]
        return DTensor.from_local(local, alone, [placement], shape=W.shape, stride=W.stride())

    def on_meta():
        with torch.device("meta"):
            model = nn.Sequential(nn.Linear(4, 6))
        fully_shard(model, mesh=mesh)
        return OrthogonalityPenalty(model)

    def many_meshes():
        same = [[Shard(0), Replicate(), Replicate()], [Replicate(), Shard(1), Replicate()]]
        weights = [distribute_tensor(W, three, own) for own in same]
        weights += [distribute_tensor(W, mesh, [Shard(1)]), distribute_tensor(W, three["a", "b"], [Shard(0)] * 2), W]
        return soft_orthogonality(weights, reduction="none")

    return {
        "partial": lambda: penalty(DTensor.from_local(W, mesh, [Partial()])),
        "two of three": lambda: penalty(distribute_tensor(W, three, [Shard(0), Shard(1), Replicate()]))().item(),
        "two without names": lambda: penalty(distribute_tensor(W, unnamed, [Shard(0), Shard(1), Replicate()])),
        "kernel": lambda: penalty(distribute_tensor(convolution, mesh, [Shard(2)])),
        "kernel of a function": lambda: soft_orthogonality([W, distribute_tensor(convolution, mesh, [Shard(3)])]),
        "outside": lambda: penalty(local_on(Shard(0)))().item(),
        "outside of replicas": lambda: penalty(local_on(Replicate()))().item(),
        "subclass": of_subclass,
        "subclass within": lambda: penalty(DTensor.from_local(TwoTensor(W, W), mesh, [Shard(0)], run_check=False)),
        "integers": lambda: penalty(distribute_tensor(torch.ones(4, 4, dtype=torch.int32), mesh, [Shard(0)])),
        "meta": on_meta,
        "start": lambda: srip([distribute_tensor(W, mesh, [Shard(0)])]),
        "many meshes": many_meshes,
        "experts": lambda: soft_orthogonality(
            [distribute_tensor(EXPERTS, mesh, [Shard(2)])], batch_dims=1, reduction="none"
        ),
        "on its way": lambda: soft_orthogonality(
            [distribute_tensor(W, mesh, [Shard(0)]).redistribute(mesh, [Replicate()], async_op=True)]
        ),
    }


def test_refusals_name_the_weight(tmp_path):
    value = soft_orthogonality([W]).item()
    ranks = on_ranks(2, tmp_path, outcomes, placements)
    for rank, found in enumerate(ranks):
        for case, words in {
            "partial": "ValueError: layer.weight has the placements (Partial(sum),), and holds partial sums",
            "two without names": "ValueError: layer.weight is sharded over 2 dimensions of DeviceMesh",
            "kernel": "ValueError: layer.weight is sharded on dimension 2 of its shape (4, 3, 4, 4)",
            "kernel of a function": "ValueError: weights[1] is sharded on dimension 3",
            "subclass": "TypeError: layer.weight is a Subclass, which wraps other tensors",
            "subclass within": "TypeError: layer.weight is a DTensor of TwoTensor, which wraps other tensors",
            "integers": "TypeError: layer.weight has dtype torch.int32",
            "meta": "ValueError: 0.weight is on the meta device",
            "start": "ValueError: weights[0] is a DTensor",
        }.items():
            assert str(found[case]).startswith(words), f"{case}: {found[case]}"
        assert found["two of three"] == pytest.approx(value)
        for case in ("outside", "outside of replicas"):
            if rank == 0:
                assert found[case] == pytest.approx(value)
            else:
                assert found[case].startswith("ValueError: layer.weight is on DeviceMesh"), found[case]
                assert "of which rank 1 is no part" in found[case]
        torch.testing.assert_close(found["many meshes"], torch.full((5,), value))
        torch.testing.assert_close(found["experts"], soft_orthogonality([EXPERTS], batch_dims=1, reduction="none"))
        assert found["on its way"].item() == pytest.approx(value)


def surroundings(rank):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (2,))

    def weight():
        return distribute_tensor(W, mesh, [Shard(0)]).requires_grad_()

    def second(kind):
        def derive():
            leaf = weight()
            [gradient] = torch.autograd.grad(penalty(leaf, kind)() + leaf.full_tensor().sum(), leaf, create_graph=True)
            torch.autograd.grad(gradient.full_tensor().sum(), leaf)

        return derive

    def transformed(transform):
        return lambda: transform(lambda given: soft_orthogonality([given]))(weight().detach().unsqueeze(0)[0])

    def by_backend(name):
        with use_backend(name):
            return [penalty(weight(), kind)().detach() for kind in ("so", "srip")]

    def within(context):
        """Made and first called within it, then trained with."""
        found = []
        for kind in ("so", "srip"):
            leaf = weight()
            with context():
                made = penalty(leaf, kind)
                found.append(made().detach().clone())
            value = made()
            value.backward()
            made.accumulate_gradients()
            with context():
                made.accumulate_gradients()
            found += [value.detach(), leaf.grad.full_tensor()]
        return found

    return {
        "second so": second("so"),
        "second srip": second("srip"),
        "grad": transformed(torch.func.grad),
        "jacrev": transformed(torch.func.jacrev),
        "vmap": transformed(torch.func.vmap),
        "torch": lambda: by_backend("torch"),
        "cpu": lambda: by_backend("cpu"),
        "triton": lambda: by_backend("triton"),
        "plain": lambda: within(contextlib.nullcontext),
        "no_grad": lambda: within(torch.no_grad),
        "inference_mode": lambda: within(torch.inference_mode),
        "autocast": lambda: within(lambda: torch.autocast("cpu", torch.bfloat16)),
    }


def test_surroundings(tmp_path):
    leaf, alone = W.clone().requires_grad_(), []
    for kind in ("so", "srip"):
        leaf.grad = None
        made = penalty(leaf, kind)
        alone.append(made().detach())
        value = made()
        value.backward()
        made.accumulate_gradients()
        made.accumulate_gradients()
        alone += [value.detach(), leaf.grad]
    for found in on_ranks(2, tmp_path, outcomes, surroundings):
        for kind in ("so", "srip"):
            # torch 2.10 keeps no graph of a DTensor's backward, and says so itself.
            once = (
                "penalties of sharded weights can be differentiated once",
                "One of the differentiated Tensors appears",
            )
            assert found[f"second {kind}"].removeprefix("RuntimeError: ").startswith(once)
        for name in ("grad", "jacrev", "vmap"):
            assert found[name].startswith("RuntimeError: weights[0] is a DTensor, whose penalties torch.func"), found[
                name
            ]
        assert "the backend 'triton' was asked for but can't serve" in found["triton"]
        for name in ("torch", "cpu"):
            torch.testing.assert_close(found[name], [alone[0], alone[3]])
        for name in ("plain", "no_grad", "inference_mode", "autocast"):
            torch.testing.assert_close(
                found[name], alone, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
            )


def few_matrices(rank, count):
    """One matrix of two rows and one weight that stands whole, for more ranks than that; then one of two of the ranks."""
    from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (count,))
    narrow = distribute_tensor(W[:2], mesh, [Shard(0)]).requires_grad_()
    plain = W.clone().requires_grad_()
    found = {}
    for kind in ("so", "srip"):
        made = OrthogonalityPenalty({"narrow": narrow, "plain": plain}, kind, gamma=1.0)
        narrow.grad = plain.grad = None
        value = made()
        value.backward()
        found[kind] = [value.detach(), narrow.grad.full_tensor(), plain.grad.clone()]
        narrow.grad = plain.grad = None
        found[f"{kind} added"] = [made.eval().accumulate_gradients(), narrow.grad.full_tensor(), plain.grad.clone()]
    pair = DeviceMesh("cpu", [1, 3])
    if rank in (1, 3):
        weight = distribute_tensor(W, pair, [Shard(1)]).requires_grad_()
        found["pair"] = [penalty(weight, kind).accumulate_gradients() for kind in ("so", "srip")]
        found["pair"].append(weight.grad.full_tensor())
    return found


def test_ranks_without_work(tmp_path):
    narrow, plain, leaf = (own.clone().requires_grad_() for own in (W[:2], W, W))
    pair = [penalty(leaf, kind).accumulate_gradients() for kind in ("so", "srip")]
    for rank, found in enumerate(on_ranks(4, tmp_path, few_matrices, 4)):
        assert ("pair" in found) == (rank in (1, 3))
        torch.testing.assert_close(found.get("pair", [*pair, leaf.grad]), [*pair, leaf.grad], rtol=1e-5, atol=1e-6)
        for kind in ("so", "srip"):
            made = OrthogonalityPenalty({"narrow": narrow, "plain": plain}, kind, gamma=1.0)
            for case in (kind, f"{kind} added"):
                narrow.grad = plain.grad = None
                value = made.accumulate_gradients()
                made.eval()
                torch.testing.assert_close(found[case], [value, narrow.grad, plain.grad], rtol=1e-5, atol=1e-6)


def without_group(rank):
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = nn.Sequential(nn.Linear(4, 6))
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    before = OrthogonalityPenalty(model)
    before()
    dist.destroy_process_group()
    found = outcomes(rank, lambda rank: {"made": lambda: OrthogonalityPenalty(model), "called": before})
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    return found


def test_without_a_process_group(tmp_path):
    [found] = on_ranks(1, tmp_path, without_group)
    for words in found.values():
        assert str(words).startswith("ValueError: 0.weight is a DTensor, but there is no process group"), words


def unlike(rank):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    found = {}
    for case, options in {"weights": {"exclude": "1"}, "options": {"side": "rows"}}.items():
        model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Linear(4, 5))
        fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
        try:
            OrthogonalityPenalty(model, **options if rank else {})
        except ValueError as error:
            found[case] = str(error)
    return found


def test_ranks_that_mean_different_weights(tmp_path):
    for found in on_ranks(2, tmp_path, unlike):
        assert "rank 0 has 1.weight: 5 x 4" in found["weights"]
        assert "rank 1 has nothing more" in found["weights"]
        assert "side='small'" in found["options"]
