"""Released penalties: our one call of each has the original's value and gradient; docs/recipes.md says so."""

import re

import originals
import pytest
import torch
from recipes import DOCUMENT, LIMIT, RECIPES, difference, table, with_table

NAMES = [recipe.who for recipe in RECIPES]


@pytest.mark.parametrize("near", [False, True], ids=["random", "near orthogonal"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("recipe", RECIPES, ids=NAMES)
def test_our_call_is_the_original(recipe, dtype, near):
    value, gradient = difference(recipe, dtype, near)
    assert value < LIMIT
    assert gradient < LIMIT


def test_every_original_is_a_recipe():
    written = {name for name in vars(originals) if name.startswith("original_")}
    assert {recipe.original.__name__ for recipe in RECIPES} == written


def test_biggan_adds_these_gradients_by_hand():
    W = torch.randn(12, 5, dtype=torch.float64, requires_grad=True)
    (modified,) = torch.autograd.grad(originals.original_biggan(W), W)
    (default,) = torch.autograd.grad(originals.original_biggan_default(W), W)
    with torch.no_grad():
        gram, I = W @ W.T, torch.eye(12)  # noqa: E741
        torch.testing.assert_close(modified, 2 * (gram * (1 - I)) @ W)
        torch.testing.assert_close(default, 2 * (gram - I) @ W)


def numbers_and_rest(page):
    """What the last two columns of the table have, and the page without it."""
    cells = re.compile(r"\| ([^|]+), ([^|]+) \| ([^|]+), ([^|]+) \|$", re.MULTILINE)
    numbers = [float(number) for found in cells.findall(page.partition("|---|\n")[2]) for number in found]
    return numbers, cells.sub("|", page)


def test_the_page_has_the_table():
    page = DOCUMENT.read_text()
    numbers, rest = numbers_and_rest(page)
    assert len(numbers) == 4 * len(RECIPES)
    assert max(numbers) < LIMIT
    _, made = numbers_and_rest(with_table(page, table(lambda recipe, dtype: (0.0, 0.0))))
    assert rest == made, "run: python tests/recipes.py"
