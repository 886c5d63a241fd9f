"""Captions of views, made by an image-to-text model or from label pictures by a template (paper section 3.3)."""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from xmask3d.data.scannet import read_captions
from xmask3d.data.scene import SceneReader, View
from xmask3d.errors import UserError, first_line
from xmask3d.files import atomic_write
from xmask3d.seal import beside, write_beside
from xmask3d.splits import Benchmark

log = logging.getLogger(__name__)


class Captioner(Protocol):
    """Captioner: writes a sentence about each view.

    Attributes:
        reads: name of the part of a view that the captioner needs, such as "image".
    """

    reads: str

    def __call__(self, views: Sequence[View]) -> list[str]: ...


class TemplateCaptioner:
    """Captioner that lists the classes in a view's label picture, largest area first.

    Args:
        benchmark: class list with the names.
        novel: name novel classes too. An image captioner does this by itself, whereas a template has to read their
            ground truth, which training does not use otherwise.
        min_share: smallest share of the pixels for a class to be named.
        at_most: largest number of classes to name.
    """

    reads = "label_map"

    def __init__(self, benchmark: Benchmark, novel: bool = False, min_share: float = 0.01, at_most: int = 5) -> None:
        self._names = benchmark.class_names
        self._allowed = np.ones(benchmark.num_classes, bool) if novel else ~benchmark.novel_mask
        self._min_share, self._at_most = min_share, at_most

    def __call__(self, views: Sequence[View]) -> list[str]:
        return [self._describe(view) for view in views]

    def _describe(self, view: View) -> str:
        if view.label_map is None:
            raise UserError(f"view {view.name} of {view.scene} has no label picture; the template needs one")
        counts = np.bincount(view.label_map.reshape(-1), minlength=len(self._names))[: len(self._names)]
        shown = [i for i in np.argsort(-counts, kind="stable") if counts[i] >= self._min_share * view.label_map.size]
        words = [_with_article(self._names[i]) for i in shown if self._allowed[i]][: self._at_most]
        if not words:
            return "a photo of a room"
        listed = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
        return f"a photo of a room with {listed}"


def _with_article(name: str) -> str:
    if name.endswith("s") and not name.endswith("ss"):
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


class ModelCaptioner:
    """Captioner by an image-to-text model of `transformers`, such as nlpconnect/vit-gpt2-image-captioning.

    Args:
        source: name on the model hub, or a local folder.
        device: device of the model.
        beams, max_length: settings of the beam search for the most probable sentence.

    Raises:
        UserError: `transformers` is not installed, or the model cannot be loaded.
    """

    reads = "image"

    def __init__(self, source: str, device: str = "cpu", beams: int = 4, max_length: int = 64) -> None:
        try:
            import transformers
        except ImportError as error:
            raise UserError(
                "captions by a model need the package transformers: pip install 'xmask3d[captions]', "
                "or use --model template"
            ) from error
        try:
            kind = transformers.AutoConfig.from_pretrained(source).model_type
            if kind == "vision-encoder-decoder":
                self._prepare = transformers.AutoImageProcessor.from_pretrained(source)
                self._decode = transformers.AutoTokenizer.from_pretrained(source).batch_decode
                model: Any = transformers.VisionEncoderDecoderModel.from_pretrained(source)
            else:
                self._prepare = transformers.AutoProcessor.from_pretrained(source)
                self._decode = self._prepare.batch_decode
                model = transformers.AutoModelForImageTextToText.from_pretrained(source)
        except (OSError, ValueError, KeyError, AttributeError) as error:
            reason = f"captioner {source}: cannot be loaded ({first_line(error)})"
            raise UserError(f"{reason}; give a local folder or --model template") from error
        self._model = model.to(device).eval()
        self._device, self._options = device, {"num_beams": beams, "max_length": max_length}

    @torch.inference_mode()
    def __call__(self, views: Sequence[View]) -> list[str]:
        pictures = [Image.fromarray(view.image) for view in views]
        inputs = self._prepare(images=pictures, return_tensors="pt").to(self._device)
        tokens = self._model.generate(**inputs, **self._options)
        return [text.strip() for text in self._decode(tokens, skip_special_tokens=True)]


def caption_views(
    readers: Iterable[SceneReader],
    captioner: Captioner,
    out: Path,
    batch: int = 8,
    report: Callable[[str], None] = log.warning,
    refuse: bool = False,
) -> int:
    """Caption every view that is not in `out` yet, and write `out` after each scene.

    Only the part of a view that the captioner needs is read. If it is damaged, the view is reported and left out, or
    refused.

    Args:
        readers: splits to caption.
        captioner: writer of the sentences.
        out: JSON {scene: {view: sentence}}.
        batch: number of views at a time.
        report: function that is called with a line about each view left out.
        refuse: stop at a damaged view.

    Returns:
        Number of views captioned by this call.

    Raises:
        UserError: `out` cannot be read or written, `batch` is less than 1, a view is refused, or a scene does not have
            the label pictures that the captioner needs.
    """
    out = Path(out)
    if batch < 1:
        raise UserError(f"{batch} views at a time: give 1 or more")
    if out.is_dir():
        raise UserError(f"{out}: is a folder; name a JSON file to write")
    captions = read_captions(out) if out.is_file() else {}
    scenes = [(reader, name) for reader in readers for name in reader.scene_names]
    added = 0
    for reader, scene in tqdm(scenes, unit="scene", disable=None):
        known = captions.setdefault(scene, {})
        todo = [name for name in reader.view_names(scene) if name not in known]
        views = _sound_views(reader, scene, todo, captioner.reads, refuse, report)
        before = len(known)
        try:
            while some := list(islice(views, batch)):
                known.update(zip([view.name for view in some], captioner(some), strict=True))
        finally:  # whatever ends the loop, finished captions are kept
            if len(known) > before:
                added += len(known) - before
                _write(out, captions)
    return added


def _sound_views(
    reader: SceneReader, scene: str, names: Iterable[str], part: str, refuse: bool, report: Callable[[str], None]
) -> Iterator[View]:
    """Yield the views whose `part` can be read; a reader that decodes on demand reads nothing else."""
    for name in names:
        try:
            view = reader.read_view(scene, name)
            getattr(view, part)
        except UserError as error:
            if refuse:
                raise
            report(f"view skipped: {error}")
        else:
            yield view


def _write(out: Path, captions: dict[str, dict[str, str]]) -> None:
    with suppress(OSError):  # reported below, where the file is written
        beside(out).unlink(missing_ok=True)
    atomic_write(out, json.dumps(captions, indent=0, ensure_ascii=False) + "\n", advice="choose another file")
    write_beside(out)
