"""Launches: triton chooses what to compile at the first; later ones go to the compiled kernel. No triton, no GPU."""

import torch

from ortho_kernels.backends.triton.launch import Launch, collected


class Compiled:
    """A compiled kernel, or one of triton.jit that compiles to it: both are called as `kernel[grid](...)`."""

    def __init__(self, name, calls, result=None):
        self.name, self.calls, self.result = name, calls, result
        self.fn = type(name, (), {})

    def __getitem__(self, grid):
        def call(*arguments, **keywords):
            self.calls.append((self.name, grid, arguments, keywords))
            return self.result

        return call


def kernel_of(calls, name="jit"):
    return Compiled(name, calls, Compiled(f"compiled {name}", calls))


KEYWORDS = {"META": "constants", "num_warps": 4}


def test_the_second_launch_goes_to_the_compiled_kernel():
    calls = []
    kernel, launch = kernel_of(calls), Launch(torch.float32, 5, None, KEYWORDS)
    for argument in "ab":
        launch.run(kernel, argument, 7)
    launch.run(kernel, "c", 7, programs=3)
    assert calls == [
        ("jit", (5,), ("a", 7), KEYWORDS),
        ("compiled jit", (5, 1, 1), ("b", 7, "constants"), {}),
        ("compiled jit", (3, 1, 1), ("c", 7, "constants"), {}),
    ]


def test_each_kernel_of_a_launch_is_compiled_apart():
    calls = []
    launch = Launch(torch.float32, 5, None, {"num_warps": 4})
    first, second = kernel_of(calls, "first"), kernel_of(calls, "second")
    for kernel in (first, second, first):
        launch.run(kernel, 1)
    assert [name for name, *_ in calls] == ["first", "second", "compiled first"]
    assert calls[-1][2:] == ((1,), {})


def test_an_interpreted_kernel_is_never_compiled():
    calls = []
    kernel, launch = Compiled("interpreted", calls), Launch(torch.float32, 5, None, KEYWORDS)
    for _ in range(2):
        launch.run(kernel, 1)
    assert [name for name, *_ in calls] == ["interpreted"] * 2


def test_nothing_runs_where_calls_are_collected():
    calls = []
    launch = Launch(torch.float32, 5, None, KEYWORDS)
    launch.run(kernel_of(calls), 1)
    with collected() as found:
        launch.run(kernel_of(calls), 2)
    assert len(calls) == 1
    assert [(call.name, call.programs, call.arguments) for call in found] == [("jit", 5, (2,))]
