"""The promises of docs/reliability.md name tests, and these exist."""

import re

import pytest

from xmask3d.resources import REPOSITORY

PAGE = (REPOSITORY / "docs" / "reliability.md").read_text(encoding="utf-8")
PROMISES = re.findall(r"^\| .*\| (`tests/[^|]+) \|$", PAGE, re.MULTILINE)


def test_there_are_ten_and_more() -> None:
    assert [int(number) for number in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)] == list(range(1, 11))
    assert len(PROMISES) > 30


@pytest.mark.parametrize("named", PROMISES)
def test_each_names_tests_that_exist(named: str) -> None:
    for name in re.findall(r"`([^`]+)`", named):
        path, _, test = name.partition("::")
        assert path.startswith("tests/") and (REPOSITORY / path).exists(), name
        assert not test or re.search(rf"^def {test}\(", (REPOSITORY / path).read_text(), re.MULTILINE), name
