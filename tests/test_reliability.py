"""The promises of docs/reliability.md name tests, and these exist."""

import re

import pytest

from xmask3d.resources import REPOSITORY

PROMISES = {
    int(number): tests
    for number, tests in re.findall(
        r"^\| (\d+) \|.*\| ([^|]+) \|$", (REPOSITORY / "docs" / "reliability.md").read_text(), re.MULTILINE
    )
}


def test_there_are_ten() -> None:
    assert sorted(PROMISES) == list(range(1, 11))


@pytest.mark.parametrize("number", sorted(PROMISES))
def test_each_names_tests_that_exist(number: int) -> None:
    named = re.findall(r"`([^`]+)`", PROMISES[number])
    assert named
    for name in named:
        path, _, test = name.partition("::")
        assert path.startswith("tests/") and (REPOSITORY / path).exists(), name
        assert not test or re.search(rf"^def {test}\(", (REPOSITORY / path).read_text(), re.MULTILINE), name
