"""Members of the family beside soft orthogonality."""

import pytest
import torch

from benchmarks import family


def test_every_member_is_checked_and_timed(capsys):
    family.main(["--weights", "router 8 x 4096", "--seconds", "0.1"])
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["weights", "member", "ms", "x", "SO", "a", "product"]
    assert [row[21:39].strip() for row in rows] == list(family.MEMBERS)
    assert rows[0].split()[-1] == "1.00"


def test_a_wrong_member_is_refused():
    base = family.MEMBERS["so"]
    wrong = base._replace(compute=lambda weights: 1.001 * base.compute(weights))
    with pytest.raises(RuntimeError, match=r"wrong: the value is off by 1\.0e-03"):
        family.check("wrong", wrong, [torch.randn(8, 9, requires_grad=True)])
