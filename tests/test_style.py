"""Docstrings begin with what a reader looks for: functions with an imperative verb, all else with a noun."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CLAUSES = {"what", "whether", "how", "which", "where", "whose", "who", "whom", "why", "when"}
NO_VERBS = {"a", "an", "the", "its", "one", "all", "every", "some", "many", "several", "no", "args", "see"}


def beginnings(source: str) -> Iterator[tuple[int, bool, str]]:
    """Yield line, whether it is of a function that is no property, and first word of each docstring."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            words = (ast.get_docstring(node) or "").split()
            if words:
                decorators = [ast.unparse(each) for each in getattr(node, "decorator_list", [])]
                acts = hasattr(node, "args") and not any("property" in each for each in decorators)
                yield node.body[0].lineno, acts, words[0].strip(".,:;").lower()


def faults(source: str) -> list[int]:
    """List the lines of docstrings that begin with a noun clause, or of functions with an article or a shape."""
    return [
        line
        for line, acts, word in beginnings(source)
        if word in CLAUSES or (acts and (word in NO_VERBS or len(word) == 1 or not word.replace("-", "").isalpha()))
    ]


def test_docstrings_begin_with_a_verb_or_a_noun() -> None:
    files = [*(ROOT / "xmask3d").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    assert len(files) > 100
    found = [f"{path.relative_to(ROOT)}:{line}" for path in files for line in faults(path.read_text("utf-8"))]
    assert not found, f"these docstrings begin with a noun clause, an article or a shape: {found}"


@pytest.mark.parametrize(
    ("source", "bad"),
    [
        ('"""What a file holds."""', True),
        ('"""Content of a file."""', False),
        ('class A:\n    """Where it is from."""', True),
        ('def f():\n    """Whether it fits."""', True),
        ('def f():\n    """The largest value."""', True),
        ('def f():\n    """N x 3 points."""', True),
        ('def f():\n    """\n    Args:\n    """', True),
        ('def f():\n    """Return the largest value."""', False),
        ('def f():\n    """Pre-train the networks."""', False),
        ('class A:\n    @property\n    def f(self):\n        """All of it."""', False),
    ],
)
def test_rule(source: str, bad: bool) -> None:
    assert bool(faults(source)) == bad


PLAIN_WRITE = re.compile(r"(?<!part)\.write_(text|bytes)\(|\)\.save\(path\)")
# Writers that are given the path of a temporary file, and files that are only begun.
GIVEN_A_PATH = {"scan/writing/plain.py", "visualize/page.py", "visualize/pictures.py", "data/download/fetch.py",
                "rooms/package.py"}  # fmt: skip


def test_files_are_written_whole_or_not_at_all() -> None:
    package = ROOT / "xmask3d"
    found = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if PLAIN_WRITE.search(path.read_text("utf-8"))
    ]
    assert set(found) <= GIVEN_A_PATH, "these write without atomic_write"
