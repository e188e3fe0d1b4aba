"""One commit against another, as far as a few tiny weights show it: nothing is said of how long anything takes."""

import pytest

from benchmarks import against, model_shapes

TINY = ["--only", "so tiny forward", "--seconds", "0.1"]


@pytest.fixture
def built(monkeypatch):
    """This checkout, which is built already, in place of every commit."""
    monkeypatch.setattr(against, "build", lambda commit: against.ROOT)


def test_every_row_has_both_times_and_a_ratio(built, capsys, monkeypatch):
    monkeypatch.setattr(against, "SLOWER", float("inf"))
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    assert against.main(["HEAD", *TINY]) == 0
    few, head, first, second, last = capsys.readouterr().out.splitlines()
    assert few.startswith("Too few passes to trust a ratio, 0 of 3")
    assert head.split() == ["ms,", "minima", "other", "this", "ratio"]
    for line, row in ((first, "so tiny forward"), (second, "so tiny forward + backward")):
        assert line.startswith(row)
        other, this, ratio = map(float, line.split()[-3:])
        assert ratio == pytest.approx(this / other, rel=0.02)
    assert last.endswith("no row.")


def test_what_is_slower_is_named(built, capsys, monkeypatch):
    monkeypatch.setattr(against, "compare", lambda other, this, rows, seconds: {row: [1.0, 1.06] for row in rows})
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 1e4, 0.0))
    assert against.main(["HEAD", *TINY]) == 1
    printed = capsys.readouterr().out
    assert "more than 5%: so tiny forward; so tiny forward + backward." in printed
    assert "The load is 10000: " in printed


def test_each_process_imports_its_own_checkout(tmp_path):
    package = tmp_path / "ortho_kernels"
    package.mkdir()
    (package / "__init__.py").write_text("")
    with against.processes([tmp_path, against.ROOT]) as (other, this):
        assert 0 < this.submit(against.shortest, against.ROWS[0]).result() < 10
        failing = other.submit(against.shortest, against.ROWS[0])
        with pytest.raises(AttributeError, match="module 'ortho_kernels' has no attribute 'soft_orthogonality'"):
            failing.result()


@pytest.mark.parametrize("row", against.ROWS, ids=" ".join)
def test_every_row_is_a_step(row, monkeypatch):
    shapes = [(8, 8), (6, 10)] if row[1] == "tiny" else [(8, 3, 3, 3), (6, 10)]
    monkeypatch.setattr(model_shapes, "MODELS", dict.fromkeys(model_shapes.MODELS, lambda: shapes))
    against.prepared.__wrapped__(row)()


@pytest.mark.parametrize(
    ("words", "said"),
    [(["no-such-commit"], "is no commit of"), (["HEAD", "--only", "alexnet"], "no row contains 'alexnet'")],
)
def test_odd_arguments_are_refused(words, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        against.main(words)
    assert said in capsys.readouterr().err
