"""Teachers are an extra: without them pre-training says so before it renders anything."""

from pathlib import Path

import pytest

from tools.pretraining import teachers
from tools.pretraining.pretraining import Plan, pretrain
from xmask3d.errors import UserError


def test_missing_teachers_are_named_before_anything_is_rendered(monkeypatch, tmp_path: Path) -> None:
    found = teachers.find_spec
    monkeypatch.setattr(teachers, "find_spec", lambda name: None if name == "sentence_transformers" else found("torch"))
    with pytest.raises(UserError, match=r"\(sentence_transformers\): pip install -e '\.\[pretrain\]'"):
        pretrain(tmp_path, tmp_path / "work", tmp_path / "out", Plan())
    assert not (tmp_path / "work").exists()


def test_a_torch_without_muon_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers, "find_spec", lambda name: name)
    monkeypatch.delattr("torch.optim.Muon")
    with pytest.raises(UserError, match="has no optimiser Muon"):
        teachers.check_teachers()
