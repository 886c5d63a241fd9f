"""The choice of a back end on CUDA: the quickest that works, timed once."""

import json
from pathlib import Path

import pytest
import torch

from xmask3d.errors import UserError
from xmask3d.sparse import fastest


def seconds(name: str) -> float:
    if name == "minkowski":
        raise UserError("cannot be imported")
    return {"torch": 2.0, "spconv": 1.0}[name]


def test_the_quickest_that_works_is_chosen() -> None:
    assert fastest.quickest(["torch", "spconv", "minkowski"], seconds) == "spconv"
    assert fastest.quickest(["torch", "minkowski"], seconds) == "torch"
    assert fastest.quickest(["minkowski"], seconds) == "torch"


def test_a_choice_is_made_once(tmp_path: Path) -> None:
    path, asked = tmp_path / "cache" / "choices.json", []

    def choose() -> str:
        asked.append(1)
        return "spconv"

    for _ in range(2):
        assert fastest.remembered(path, "a card", choose) == "spconv"
    assert len(asked) == 1
    fastest.remembered(path, "another card", choose)
    assert json.loads(path.read_text()) == {"a card": "spconv", "another card": "spconv"} and len(asked) == 2
    for damaged in ("[", "[]", '{"a card": ["spconv"]}', '{"a card": "of earlier days"}'):
        path.write_text(damaged)
        assert fastest.remembered(path, "a card", choose) == "spconv"
    assert len(asked) == 6


def test_a_choice_that_cannot_be_kept_is_made_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "full").mkdir(parents=True)
    for path in (tmp_path / "file" / "choices.json", tmp_path / "folder"):
        assert fastest.remembered(path, "a card", lambda: "torch") == "torch"


def test_torch_alone_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastest, "find_spec", lambda name: name == "torch")
    fastest.fastest_backend.cache_clear()
    assert fastest.fastest_backend(torch.device("cuda", 0)) == "torch"
    fastest.fastest_backend.cache_clear()


def test_what_is_timed_has_as_many_neighbours_as_a_scan() -> None:
    from xmask3d.sparse.coordinates import CoordinateMaps

    floor = fastest._wavy_floor()
    table = CoordinateMaps(floor).neighbours(1, 3).table
    assert len(floor) == fastest.SIDE**2
    assert 7 < (table < len(floor)).sum(1).float().mean() < 17
