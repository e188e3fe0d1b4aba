"""The configurations: every one within the capacity of its card; a tuned file in their place, or a clear error."""

import json

import pytest

from ortho_kernels.backends.triton import heuristics
from ortho_kernels.backends.triton.heuristics import ARCHITECTURES, INTERPRETER, TABLE, Pass, Tile, replace


@pytest.fixture(autouse=True)
def nothing_cached():
    heuristics.configuration.cache_clear()
    yield
    heuristics.configuration.cache_clear()


def test_every_architecture_has_a_configuration():
    assert set(TABLE) == set(ARCHITECTURES) | {INTERPRETER}


@pytest.mark.parametrize("architecture", TABLE)
def test_every_entry_fits_its_card(architecture):
    assert TABLE[architecture].architecture == architecture
    assert heuristics.misfits(TABLE[architecture]) == []


def test_forward_products_of_float32_keep_their_digits():
    for entry in TABLE.values():
        assert entry.forward_precision in ("bf16x8", "tf32x3", "ieee")
        assert entry.product_precisions[0] in ("bf16x8", "tf32x3", "ieee")
        assert entry.update_precision in ("tf32x3", "ieee")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"residual_float32": Tile(256, 256, 64, 8, 4)}, "shared memory"),
        ({"residual_float32": Tile(256, 256, 16, 4, 1)}, "registers"),
        ({"residual_float32": Tile(128, 128, 16, 8, 2, programs=4)}, "registers"),
        ({"passes": Pass(1024, 2, 8, 2)}, "columns"),
        ({"passes": Pass(1024, 32, 8, 2)}, "registers of a tile"),
        ({"residual_half": Tile(64, 128, 32, 4, 2)}, "square"),
        ({"product_half": Tile(8, 128, 32, 4, 2)}, "at least 16"),
        ({"product_half": Tile(96, 128, 32, 4, 2)}, "power of two"),
        ({"passes": Pass(16, 128, 64, 1)}, "threads"),
        ({"passes": Pass(16, 128, 32, 8)}, "registers each"),
    ],
    ids=lambda each: str(each)[:40],
)
def test_what_does_not_fit_is_found(change, words):
    assert any(words in problem for problem in heuristics.misfits(replace(TABLE["sm_90"], **change)))


def test_a_tuned_file_takes_precedence(tmp_path, monkeypatch):
    monkeypatch.setenv("ORTHO_KERNELS_TUNED", str(tmp_path))
    assert heuristics.configuration("sm_90") == TABLE["sm_90"]
    heuristics.configuration.cache_clear()
    tuned = replace(TABLE["sm_90"], passes=Pass(32, 64, 4, 1))
    heuristics.tuned_path("sm_90").write_text(heuristics.as_json(tuned))
    assert heuristics.configuration("sm_90") == tuned
    assert heuristics.configuration("sm_80") == TABLE["sm_80"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "unknown entries"),
        (json.dumps({"colour": {}}), "colour"),
        (json.dumps({"passes": {"rows": 16}}), "missing"),
        (json.dumps({"update": {"rows": 16, "columns": 64, "warps": 3}}), "update.warps must be a power of two"),
    ],
)
def test_a_tuned_file_that_does_not_fit_says_why(text, words):
    with pytest.raises(ValueError, match=words) as caught:
        heuristics.tuned(TABLE["sm_90"], text, "card.json")
    assert str(caught.value).startswith("card.json")
