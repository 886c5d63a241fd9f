"""Activation checkpointing by the memory of a pretended GPU."""

from types import SimpleNamespace

import pytest
import torch

from xmask3d.config import load_config
from xmask3d.engine.memory_plan import choose_checkpointing
from xmask3d.resources import REPOSITORY

CARDS = {"24": 23.5, "40": 39.4, "48": 44.4, "80": 79.2}  # GiB that torch finds on cards of so many GB


@pytest.mark.parametrize(
    ("card", "overrides", "processes", "on", "line"),
    [
        ("80", [], 4, False, "auto: off; a step of 16 views takes about 44 GiB, 37 with it, of 79"),
        ("48", [], 4, True, "auto: on; a step of 16 views takes about 44 GiB, 37 with it, of 44"),
        ("40", [], 4, True, "of 39: probably too much; lower train.samples_per_process"),
        ("40", ["train.samples_per_process=8"], 1, False, "a step of 8 views takes about 25 GiB"),
        ("24", ["train.samples_per_process=8"], 1, True, "probably too much"),
        ("40", ["train.precision=bfloat16"], 4, True, "a step of 16 views takes about 38 GiB, 32 with it, of 39"),
        ("24", ["data.image_size=[256,256]"], 1, False, "a step of 16 views takes about 15 GiB"),
    ],
)
def test_the_memory_of_the_card_decides(
    monkeypatch: pytest.MonkeyPatch, card: str, overrides: list[str], processes: int, on: bool, line: str
) -> None:
    properties = SimpleNamespace(total_memory=int(CARDS[card] * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    config = load_config("scannet/B15N4", overrides)
    chosen, printed = choose_checkpointing(config, processes, torch.device("cuda", 0))
    assert chosen.model.checkpointing is on and line in printed
    assert chosen.model_copy(update={"model": config.model}) == config


@pytest.mark.parametrize("card", ["24", "40", "80"])
def test_plans_fit_their_cards(monkeypatch: pytest.MonkeyPatch, card: str) -> None:
    properties = SimpleNamespace(total_memory=int(CARDS[card] * 2**30))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    plan = load_config(REPOSITORY / "config" / f"card-{card}gb.yaml")
    chosen, printed = choose_checkpointing(plan, 1, torch.device("cuda", 0))
    assert chosen.model.checkpointing is False and "probably" not in printed


def test_what_was_decided_stays_and_a_cpu_recomputes_nothing() -> None:
    config = load_config("scannet/B15N4", ["model.checkpointing=true"])
    assert choose_checkpointing(config, 1, torch.device("cuda", 0)) == (config, None)
    chosen, printed = choose_checkpointing(load_config("scannet/B15N4"), 1, torch.device("cpu"))
    assert chosen.model.checkpointing is False and printed == "model.checkpointing=auto: off"
