"""Opening of the viewer on a path, which may be a result with its labels, saved features, or a scan."""

from pathlib import Path

import numpy as np

from xmask3d.scan.clouds import SUFFIXES
from xmask3d.scan.scan import open_scan
from xmask3d.scan.sources import is_archive
from xmask3d.segment.corrections import CORRECTIONS
from xmask3d.segment.folder import features_file
from xmask3d.segment.query import text_encoder
from xmask3d.segment.saved_features import PointFeatures
from xmask3d.segment.saved_labels import SavedLabels, read_labels
from xmask3d.segment.viewer import SceneViewer


def open_viewer(path: Path, host: str = "127.0.0.1", port: int = 8080) -> SceneViewer:
    """Serve a result's folder (labels, and queries where its features are), features (queries), or a scan (colours).

    Raises:
        UserError: the path is none of these, a file of the result is damaged, or the address cannot be served.
    """
    file, folder = features_file(path), path if path.is_dir() else path.parent
    if file.is_file() and not is_archive(file) and file.suffix.lower() not in (*SUFFIXES, ".sens", ".pth"):
        return _view_features(file, read_labels(folder), folder / CORRECTIONS, host, port)
    if path.is_dir() and (saved := read_labels(path)) is not None:
        return _view_labels(saved, host, port)
    scan = open_scan(path)
    colors = np.full(scan.points.shape, 128, np.uint8) if scan.colors is None else scan.colors
    upright = scan.points @ scan.rotation.T.astype(np.float32)
    return SceneViewer(
        upright, colors, rotation=scan.rotation, origin=scan.origin, title=scan.name, host=host, port=port
    )


def _view_labels(saved: SavedLabels, host: str, port: int) -> SceneViewer:
    """View a result whose features no longer exist."""
    return SceneViewer(
        saved.points @ saved.rotation.T,
        np.full(saved.points.shape, 128, np.uint8),
        saved.labels,
        saved.names,
        confidence=saved.confidence,
        rotation=saved.rotation,
        origin=saved.origin,
        objects=saved.objects,
        object_names=saved.object_names,
        title=saved.title,
        host=host,
        port=port,
    )


def _view_features(file: Path, saved: SavedLabels | None, corrections: Path, host: str, port: int) -> SceneViewer:
    features = PointFeatures.load(file)
    if saved is not None and len(saved.points) != len(features.points):
        saved = None
    rotation = features.numbers("rotation", 9).reshape(3, 3)
    return SceneViewer(
        features.points @ rotation.T.astype(np.float32),
        features.colors,
        saved.labels if saved else None,
        saved.names if saved else None,
        confidence=saved.confidence if saved else None,
        features=features,
        load_text=lambda: text_encoder(features),
        words=saved.words if saved else None,
        rotation=rotation,
        origin=features.numbers("origin", 3),
        objects=saved.objects if saved else None,
        object_names=saved.object_names if saved else (),
        title=features.fact("scan"),
        corrections=corrections,
        host=host,
        port=port,
    )
