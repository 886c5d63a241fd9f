"""Dry run of the published path: made-up files of real names and layouts, and the commands of the pages as they stand.

The networks, pictures and scenes are small, since a training step and a table of the published sizes take many minutes
on two cores: a configuration of the published name holds their sizes. The rest is as published: archives, folders,
containers and names of tensors, 64 views a step, 150 epochs, the protocol. Where smallness shows: `convert`, which
expects the published sizes, is told the configuration; `check`, which seeks a released checkpoint only for these, is
told the file; an epoch of four scenes has one step instead of 300.
"""

import os
import re
import shlex
import shutil
import signal
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import AutoencoderKL, UNet2DConditionModel

from tests.helpers.command import run_command
from tests.helpers.diffusion import SMALL_UNET_1, SMALL_VAE, compvis_state
from tests.helpers.published import write_released
from tests.helpers.runs import command_run, run, train_run
from tests.helpers.scenes import write_scenes
from tests.helpers.tiny import UNET, write_clip
from tests.helpers.web import FileServer
from tests.models.loading.test_diffusion_weights import as_transformers_names, text_tower
from xmask3d.build_untrained import network_of
from xmask3d.checkpoints.published import Layout
from xmask3d.config import load_config
from xmask3d.data.download.items import ITEMS
from xmask3d.resources import REPOSITORY

CONFIG = "config/scannet/B15N4.yaml"
NAMES = {"CONFIG": CONFIG, "NAME": "b15n4", "OUTPUT": "runs/scannet-B15N4"}
SMALL = {
    "model": {
        "clip": "pretrained/clip", "point_unet": UNET, "binary_unet": UNET, "pyramid_channels": 32,
        "pyramid_mid_channels": 32, "hidden": 32, "heads": 2, "pixel_layers": 1, "pixel_ffn": 16, "mask_layers": 3,
        "mask_ffn": 16, "queries": 4,
    },
    "data": {"image_size": [64, 64], "voxel_size": 0.2, "min_points": 50, "workers": 0},
    "evaluate": {"workers": 0},
}  # fmt: skip


def commands(page: str, heading: str) -> list[list[str]]:
    """Command lines in the shell blocks below a heading, with names in place of their capitals."""
    text = (REPOSITORY / page).read_text().split(f"\n## {heading}")[1].split("\n## ")[0]
    found = []
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[1:2] != ["scripts/install.sh"]:
                found.append([re.sub(r"\b(CONFIG|NAME|OUTPUT)\b", lambda word: NAMES[word[0]], word) for word in words])
    return found


def arguments_of(words: list[str]) -> list[str]:
    """Arguments of `xmask3d` that a command of the pages comes to."""
    if words[0] == "xmask3d":
        return words[1:]
    script = (REPOSITORY / words[1]).read_text()
    command = re.search(r'(?:-m xmask3d|^launch) (\w+) "\$@"', script, re.MULTILINE)
    assert command, words
    return [command[1], *words[2:]]


def write_diffusion(path: Path) -> None:
    """Write sd-v1-3.ckpt: the container of CompVis, with the text encoder and what else the file has."""
    vae, unet = AutoencoderKL.from_config(SMALL_VAE), UNet2DConditionModel.from_config(SMALL_UNET_1)
    tower = as_transformers_names(text_tower(64, quick_gelu=True))
    text = {f"cond_stage_model.transformer.{name}": tensor for name, tensor in tower.items()}
    shapes = compvis_state(vae, unet) | text
    state = {name: (torch.randn(tensor.shape) * 0.02).half() for name, tensor in shapes.items()}
    state |= {"model_ema.decay": torch.tensor(0.9999), "betas": torch.linspace(1e-4, 2e-2, 1000)}
    path.parent.mkdir(parents=True)
    torch.save({"epoch": 3, "global_step": 470000, "pytorch-lightning_version": "1.4.2", "state_dict": state}, path)


def write_served(folder: Path) -> None:
    """Write all that is downloaded, but for the checkpoint, whose sizes follow from the networks."""
    data = write_scenes(folder / "data", {"train": 4, "val": 2}, views=3, spacing=0.1)
    (data / "captions.json").rename(folder / "captions.json")
    write_diffusion(folder / "sd_model" / "sd-v1-3.ckpt")
    for content in (data / "scannet_3d", data / "scannet_2d", folder / "sd_model"):
        name = content.name
        with tarfile.open(folder / f"{name}.tar.gz", "w" if name == "sd_model" else "w:gz") as archive:
            archive.add(content, name)  # random numbers do not get smaller
    shutil.rmtree(folder / "sd_model")


def write_home(folder: Path) -> None:
    """Write the configuration of the published name, with the sizes above, and the CLIP that is no download."""
    (folder / "config" / "scannet").mkdir(parents=True)
    shutil.copy(REPOSITORY / "config" / "published.yaml", folder / "config")
    content = yaml.safe_load((REPOSITORY / CONFIG).read_text())
    for group, values in SMALL.items():
        content[group] = {**content.get(group, {}), **values}
    (folder / CONFIG).write_text(yaml.safe_dump(content))
    write_clip(folder / "pretrained" / "clip")


def command_in(folder: Path, arguments: list[str]) -> int:
    """Do what `xmask3d` does in a folder; a training is stopped by SIGTERM in its first step."""
    os.chdir(folder)
    if arguments[0] == "train":
        return train_run(Path(arguments[1]), arguments[2:], 0, signal.SIGTERM)
    return command_run(arguments)


class Home:
    """Folder of a user, in which commands of the pages run; downloads come from a local server."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, server: FileServer) -> None:
        self.folder, self.server = folder, server
        for name, item in ITEMS.items():
            monkeypatch.setitem(ITEMS, name, replace(item, urls=(f"{server.url}/{item.file}",), sha256=None))
        monkeypatch.setattr("xmask3d.resources.IS_CHECKOUT", False)  # what is downloaded goes to where the user is
        monkeypatch.chdir(folder)

    def do(self, words: list[str]) -> tuple[int, str]:
        """Run a command of the pages; its exit code, and what it printed where it is no download."""
        arguments, log = arguments_of(words), self.folder / "log"
        if arguments[0] == "download":
            return int(run_command(*arguments) or 0), ""
        log.unlink(missing_ok=True)
        return run(command_in, self.folder, arguments, log=log) or 0, log.read_text()

    def succeed(self, words: list[str], code: int = 0) -> str:
        """Run a command, which ends with that exit code; what it printed."""
        found, said = self.do(words)
        assert found == code, (words, said)
        return said


@pytest.mark.slow
def test_commands_of_the_pages_lead_from_downloads_to_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tmp_path / "served"
    write_served(served)
    write_home(tmp_path / "home")
    with FileServer(served) as server:
        home = Home(tmp_path / "home", monkeypatch, server)
        check_downloads(home)
        check_released(home, served)
        check_training(home)


def check_downloads(home: Home) -> None:
    """Commands that every row needs once, of both pages; the second page finds all in its place."""
    *downloads, weights, data = commands("docs/benchmarks.md", "Once")
    again, *checks = commands("README.md", "Reproduce")[:3]
    assert [weights, data] == checks and len(downloads) == 3
    for words in [*downloads, again]:
        home.succeed(words)
    assert len(home.server.asked) == 4  # and nothing is fetched twice
    said = home.succeed(weights)
    assert "computed from the text encoder" in said and "CompVis checkpoint" in said
    said = home.succeed(data)
    assert "scenes 4, points" in said and "views looked at 12, usable 12, with label picture 12" in said
    assert "with caption 12" in said and "4 scenes, where the published scannet has 1201" in said, said


def check_released(home: Home, served: Path) -> None:
    """Commands for a released checkpoint: to a table, and on to further steps."""
    write_released(served / "b15n4.pth.tar", Layout.of(network_of(load_config(CONFIG))))
    fetch, convert, check, evaluate, resume, train = commands("docs/benchmarks.md", "Model zoo")
    home.succeed(fetch)
    assert "epoch 150" in home.succeed([*convert, "--config", CONFIG])
    said = home.succeed([*check, "--checkpoint", "pretrained/b15n4.pth.tar"])
    assert "epoch 150" in said and "all weights are there" in said, said
    assert "protocol reference: 2 scenes, 6 views" in home.succeed(evaluate)
    steps = 64 // load_config(CONFIG).train.batch_size
    resume[-1] = resume[-1].replace("45000", f"{150 * steps:05d}")
    home.succeed([*resume, "--steps-per-epoch", str(steps)])
    said = home.succeed(train, 143)
    assert f"resume at step {150 * steps} of {160 * steps} (160 epochs of {steps})" in said
    assert f"stopped by a signal after step {150 * steps + 1}, saved" in said
    shutil.rmtree(home.folder / "runs")


def check_training(home: Home) -> None:
    """Commands that train a row: its first step, and the table of what that saved."""
    train, evaluate = commands("docs/benchmarks.md", "Training a row")
    assert commands("README.md", "Reproduce")[3:] == [train, evaluate]
    said = home.succeed(train, 143)
    assert "start at step 0 of" in said and "stopped by a signal after step 1, saved" in said and "warning" not in said
    assert "protocol reference: 2 scenes, 6 views" in home.succeed(evaluate)
