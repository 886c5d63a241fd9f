"""The README's animation: words are typed, heat maps fade in, labels end it."""

from pathlib import Path

from PIL import Image

from tests.segment.test_page_words import room_features
from tools.studies.animation import STEPS, animate


def test_words_are_typed_and_light_up_the_scene(tmp_path: Path) -> None:
    stage = animate(room_features(), ["sofa"], ["chair", "floor"], ["wall"], (48, 210))
    typed = [len("sofa"), len("chair, floor")]
    assert len(stage.frames) == len(stage.durations) == 1 + sum(letters + STEPS + 1 for letters in typed)
    heat, labels = stage.frames[sum([1, typed[0], STEPS])], stage.frames[-1]
    for frame in (heat, labels):
        assert frame.size == stage.frames[0].size and frame.tobytes() != stage.frames[0].tobytes()
    stage.save(tmp_path / "a.webp")
    with Image.open(tmp_path / "a.webp") as picture:
        assert picture.format == "WEBP" and picture.n_frames > 10
