"""Runs go on with the losses they began with."""

import pytest

from xmask3d.checkpoints.checkpoint import Checkpoint
from xmask3d.config import Config
from xmask3d.engine.resume_check import check_resumable
from xmask3d.errors import UserError


def with_losses(**extra: float) -> Config:
    return Config.model_validate({"loss": {"extra": {f"my_package.{name}": weight for name, weight in extra.items()}}})


@pytest.mark.parametrize(("before", "now"), [({}, {"A": 1.0}), ({"A": 1.0}, {}), ({"A": 1.0}, {"A": 0.5})])
def test_a_loss_of_ones_own_belongs_to_the_run(before: dict, now: dict) -> None:
    checkpoint = Checkpoint(step=1, steps_per_epoch=4, model={}, optimizer={}, config={})
    checkpoint.config = with_losses(**before).model_dump(mode="json")
    check_resumable(with_losses(**before), checkpoint, 4)
    with pytest.raises(UserError, match=r"loss\.extra: .* in the run, .* now"):
        check_resumable(with_losses(**now), checkpoint, 4)


def test_a_run_with_the_earlier_name_of_a_key_is_resumed() -> None:
    checkpoint = Checkpoint(step=1, steps_per_epoch=4, model={}, optimizer={}, config={})
    checkpoint.config = {"train": {"keep_encodings": True}}
    check_resumable(Config.model_validate({"train": {"feature_cache": True}}), checkpoint, 4)
    with pytest.raises(UserError, match=r"train\.feature_cache: True in the run, False now"):
        check_resumable(Config(), checkpoint, 4)
