"""Settings of samples, the published ones and of small pictures; and views that are read whole."""

from dataclasses import fields, replace

from xmask3d.data.scene import SceneReader, View
from xmask3d.data.view_settings import Augmentation, ViewFilter, ViewSettings

PUBLISHED = ViewSettings(image_size=(512, 512), voxel_size=0.02, border=10, depth_tolerance=0.25)
SCENE = replace(PUBLISHED, image_size=(64, 80), voxel_size=0.05, filter=ViewFilter(100))
VALIDATION = replace(SCENE, filter=ViewFilter(101, 64_999, 11))
TRAINING = replace(VALIDATION, augmentation=Augmentation())


def read_whole(reader: SceneReader, scene: str, name: str) -> View:
    """Read every part of a view, also where the reader decodes them when they are used."""
    view = reader.read_view(scene, name)
    return View(**{field.name: getattr(view, field.name) for field in fields(View)})
