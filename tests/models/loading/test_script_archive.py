"""TorchScript archives are read as tensors; their code does not run."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from xmask3d.errors import UserError
from xmask3d.models.clip import load_clip
from xmask3d.models.loading.script_archive import load_script_archive

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.small = nn.Parameter(torch.randn(2, 3).half().t())
        self.register_buffer("count", torch.arange(5)[1:4])
        self.constant = torch.ones(2)  # an attribute, which no state dict has

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + self.constant.sum()


class Hostile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.training = torch.ones(2), False

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        self.weight, self.training = state
        torch.save(state[0], "written-by-the-archive")

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("traced", [False, True])
def test_tensors_are_those_of_the_state_dict(traced: bool, tmp_path: Path) -> None:
    module = nn.Sequential(Block(), Block()).eval()
    script = torch.jit.trace(module[0], torch.rand(1, 3, 2, 2)) if traced else torch.jit.script(nn.Sequential(Block()))
    script.save(tmp_path / "a.pt")
    found, expected = load_script_archive(tmp_path / "a.pt"), script.state_dict()
    assert found.keys() == expected.keys() and len(found) == 9
    assert all(torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype
               for name, tensor in expected.items())  # fmt: skip


def test_code_of_an_archive_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.jit.script(Hostile()).save("a.pt")
    Path("written-by-the-archive").unlink(missing_ok=True)
    assert load_script_archive(Path("a.pt")) == {}
    with pytest.raises(UserError, match="no CLIP vision transformer"):
        load_clip("a.pt")
    assert not Path("written-by-the-archive").exists()
    torch.jit.load("a.pt")
    assert Path("written-by-the-archive").exists(), "torch's own reader runs it: this test is worth something"


@pytest.mark.parametrize("content", [b"cos\nsystem\n(S'touch harm'\ntR.", b"", b"\x80\x02]", pickle.dumps([1, 2])])
def test_damaged_and_hostile_pickles(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("a.pt", "w") as archive:
        archive.writestr("a/data.pkl", content)
        archive.writestr("a/constants.pkl", b"")
    with pytest.raises(UserError, match=r"a\.pt: ") as caught:
        load_clip("a.pt")
    assert "\n" not in str(caught.value) and not Path("harm").exists()
