"""The benchmark of convolutions checks its results and prints a ratio."""

from benchmarks import convolutions


def test_it_measures(capsys):
    assert convolutions.main(["--seconds", "0", "--channels", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[:3] for line in lines[::2]] == [["25", "3", "of"], ["9", "3", "of"]]
    assert all(line.endswith("x") for line in lines)


def test_the_kernels_are_resnet_50_s():
    assert convolutions.CHANNELS == {64: 3, 128: 4, 256: 6, 512: 3}
