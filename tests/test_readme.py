"""The README's Python examples run as they stand there."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("code", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example(code, capsys):
    if "torchvision" in code:
        pytest.importorskip("torchvision")
    exec(compile(code, str(README), "exec"), {})
    assert capsys.readouterr().out
