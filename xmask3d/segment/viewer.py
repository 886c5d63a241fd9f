"""Live viewer in the browser: a cloud, its classes, and a text box for queries on saved features."""

import io
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from xmask3d.errors import UserError, missing_extra
from xmask3d.geometry.nearest import point_spacing
from xmask3d.segment.corrections import UNLABELLED, Corrections
from xmask3d.segment.newest import Newest
from xmask3d.segment.ports import free_port
from xmask3d.segment.query import Encoder, query_features
from xmask3d.segment.saved_features import PointFeatures
from xmask3d.segment.viewer_guard import Guard, Rule, number, one_of, text
from xmask3d.segment.viewer_text import PHONE, heat_bar, named, number_objects, plain
from xmask3d.segment.wording import is_learned, local_clip
from xmask3d.visualize.cloud import class_palette, label_palette
from xmask3d.visualize.overview import heat_colors, label_colors
from xmask3d.visualize.page import SHOWN, thin_rows

try:
    import viser
except ImportError as error:
    raise missing_extra("the viewer", "view") from error

MAX_POINTS = 1_000_000
MAX_NAME = 60  # largest length of an object's name, in characters
MAX_SIGNS = 60  # largest number of objects whose names are shown in the scene
MAX_TEXT = 2000  # largest length of a query, in characters
SIZES = (0.2, 4.0)  # size of a point, in multiples of the spacing
PAUSE = 0.7  # seconds after the last key stroke before a query is answered
PRESETS = {"corner": (-1, -1, 0.9), "top": (0, -0.01, 1.6), "front": (0, -1.6, 0.3), "side": (1.6, 0, 0.3)}
ROOM_HEIGHT, BELOW_CEILING = 1.5, 0.8  # height in metres from which the upper fifth is hidden at first
ZOOM = 0.95  # distance from which the scene fills the picture, as a multiple of half its diagonal


class SceneViewer:
    """Server of one scene until `stop`.

    Args:
        points: n x 3 metres, z up. colors: n x 3 uint8.
        labels: n class ids, -1 unlabelled; None without labels. names: K class names.
        confidence: n in [0, 1], or None.
        features: features of the same points, for queries; None for no queries.
        load_text: function that makes the text encoder at the first query.
        words: queries behind `names`, with their synonyms; the names themselves by default.
        rotation: 3 x 3, rotation of the scan's own frame to upright. origin: 3. Positions are shown in the own frame.
        objects: n object numbers, -1 for none; None without objects. object_names: class of each object.
        title: title shown in the panel.
        corrections: file for corrections by clicks; None to save none.
        host, port: address of the server; another port is taken if that one is in use.

    Raises:
        UserError: the address cannot be served.
    """

    def __init__(
        self,
        points: np.ndarray,
        colors: np.ndarray,
        labels: np.ndarray | None = None,
        names: list[str] | None = None,
        *,
        confidence: np.ndarray | None = None,
        features: PointFeatures | None = None,
        load_text: Callable[[], Encoder] | None = None,
        words: list[str] | None = None,
        rotation: np.ndarray | None = None,
        origin: np.ndarray | None = None,
        objects: np.ndarray | None = None,
        object_names: Sequence[str] = (),
        title: str = "scan",
        corrections: Path | None = None,
        host: str = "127.0.0.1",
        port: int = 8080,
    ) -> None:
        self._kept = thin_rows(len(points), MAX_POINTS)
        self._points, self._colors = points[self._kept].astype(np.float32), colors[self._kept]
        self._labels = np.full(len(self._kept), -1) if labels is None else labels[self._kept]
        self._confidence = None if confidence is None else confidence[self._kept]
        self._names = list(names or [])
        self._features, self._load_text = features, load_text
        self._text: Encoder | None = None
        self._heat: np.ndarray | None = None
        self._scale: tuple[float, float] | None = None
        self._words: list[str] = list(words or self._names)
        self._rotation = np.eye(3) if rotation is None else np.asarray(rotation, np.float64)
        self._origin = np.zeros(3) if origin is None else np.asarray(origin, np.float64)
        self._base = (np.full(len(points), -1) if labels is None else labels, self._names)
        self._file, self._corrections = corrections, None
        if features is not None:
            found = corrections is not None and corrections.is_file()
            self._corrections = Corrections.load(corrections) if found and corrections else Corrections.none(features)
            self._labels, self._names = self._corrected()
        self._objects = None if objects is None else objects[self._kept]
        self._object_titles = number_objects(object_names)
        self._modes = ("colours", "labels", *(("objects",) if objects is not None else ()), "heat map")
        self._spacing = point_spacing(self._points)
        near = np.percentile(self._points, SHOWN, axis=0) if len(points) else np.zeros((2, 3))
        self._low, self._high = near[0], near[1]
        self._lock = threading.RLock()  # callbacks come from several threads
        self._later, self._guard = Newest(), Guard(host)
        with self._guard.installed():
            self._server = viser.ViserServer(host=host, port=free_port(host, port), verbose=False)
        self._server.scene.set_up_direction("+z")
        self._server.gui.configure_theme(dark_mode=True, show_logo=False)
        if hasattr(self._server.gui, "main_panel"):  # older versions of viser let the panel float
            self._server.gui.main_panel.dock_right()
        self._build_panel(title)
        self._register_clicks()
        self._server.on_client_connect(lambda client: self._look_from(client, "corner"))
        self.update()

    @property
    def port(self) -> int:
        """Port of the server."""
        return self._server.get_port()

    def stop(self) -> None:
        """End the server."""
        self._later.stop()
        self._server.stop()

    def wait(self) -> None:
        """Serve until interrupted."""
        try:
            while True:
                time.sleep(3600)
        finally:
            self.stop()

    def ask(self, text: str) -> None:
        """Answer a query: several words, separated by commas, label every point; a single phrase gives a heat map."""
        words = [word.strip() for word in text.split(",") if word.strip()]
        if not words:
            return
        if self._features is None:
            self._info.content = "No saved features here; segment the scan first."
            return
        with self._lock:
            start = time.monotonic()
            if self._text is None:
                assert self._load_text is not None
                self._text = self._load_text()
            try:
                result = query_features(self._features, words, self._text)
            except UserError as error:
                self._info.content = plain(str(error))
                return
            notes = "".join(f"\n\n{plain(note)}" for note in result.about["wording"])
            clip = local_clip(self._features.fact("clip"))
            if len(words) == 1 and not any(is_learned(said, clip) for said, _ in result.texts[0]):
                self._info.content = f"**{plain(text)}**: nothing found{notes}"
                return
            self._words = words
            if len(words) == 1:
                self._heat, self._scale, mode = result.heat(0)[self._kept], result.scale, "heat map"
                low, high = result.scale or (0.0, 1.0)
                found = f"{len(result.regions[0])} places fit best; dark blue is {low:.2f}, red {high:.2f}"
            else:
                self._base, mode = (result.labels, result.names), "labels"
                self._labels, self._names = self._corrected()
                self._confidence = result.confidence[self._kept]
                self._build_legend()
                found = f"{len(np.unique(result.labels[result.labels >= 0]))} of {len(words)} words found"
            self._info.content = f"**{plain(text)}**: {found}, in {time.monotonic() - start:.2f} s{notes}"
            self._mode.value = mode  # type: ignore[misc]  # viser types its handles as read-only
            self.update()

    def correct(self, row: int, name: str) -> None:
        """Correct the label of a point, and thereby of similar places; `row` is its index among the drawn points."""
        if self._features is None or self._corrections is None:
            self._info.content = "No saved features here; segment the scan first."
            return
        with self._lock:
            start, earlier = time.monotonic(), self._labels
            labels, names = self._base
            point = int(self._kept[row])
            before = names[labels[point]] if labels[point] >= 0 else UNLABELLED
            self._corrections.add(self._features, point, before, name)
            moved = self._learn(earlier)
            self._info.content = f"**{plain(name)}**: {moved:,} points follow, in {time.monotonic() - start:.2f} s"
            self._keep()

    def undo(self) -> None:
        """Undo the last correction."""
        with self._lock:
            if self._corrections:
                self._corrections.remove()
                self._info.content = f"{self._learn(self._labels):,} points are as before"
                self._keep()

    def _keep(self) -> None:
        """Save the corrections; if the folder is not writable, a line in the panel says so."""
        try:
            if self._file is not None and self._corrections is not None:
                self._corrections.save(self._file)
        except UserError as error:
            self._info.content += f"\n\nNot kept after this session: {plain(str(error))}"

    def _learn(self, earlier: np.ndarray) -> int:
        """Apply the corrections to the labels again, and return the number of points that changed."""
        self._labels, self._names = self._corrected()
        self._build_legend()
        self._mode.value = "labels"  # type: ignore[misc]  # viser types its handles as read-only
        self.update()
        return int((self._labels != earlier).sum())

    def _corrected(self) -> tuple[np.ndarray, list[str]]:
        """Return the labels of the drawn points after corrections, and the names."""
        labels, names = self._base
        if self._features is not None and self._corrections:
            labels, names, _ = self._corrections.apply(self._features, labels, names)
        return labels[self._kept], names

    def update(self) -> None:
        """Draw the cloud according to the panel."""
        with self._lock:
            shown = self._shown()
            if self._mode.value == "heat map" and self._heat is not None:
                colors = heat_colors(self._heat, self._scale)
            elif self._mode.value == "labels":
                colors = label_colors(self._labels, class_palette(self._names), self._colors)
            elif self._mode.value == "objects" and self._objects is not None:
                colors = label_colors(self._objects, label_palette(len(self._object_titles)), self._colors)
            else:
                colors = self._colors
            self._bar.content = heat_bar(self._heat, self._scale) if self._mode.value == "heat map" else ""
            for sign in self._signs:
                sign.visible = self._mode.value == "objects"
            self._server.scene.add_point_cloud(
                "/scan",
                points=self._points[shown],
                colors=colors[shown],
                point_size=float(self._size.value) * self._spacing,
                point_shape="circle",
            )

    def _shown(self) -> np.ndarray:
        """Return the points below the cut whose class is ticked."""
        with self._lock:
            boxes = np.array([box.value for box in self._ticks], bool)
            return (self._points[:, 2] <= self._cut.value) & boxes[self._labels]

    def explain(self, row: int) -> str:
        """Describe a point as Markdown; `row` is its index among the drawn points."""
        label = int(self._labels[row])
        name = self._names[label] if label >= 0 else "unlabelled"
        if self._objects is not None and self._objects[row] >= 0:
            name += f" · {self._object_titles[int(self._objects[row])]}"
        place = self._points[row].astype(np.float64) @ self._rotation + self._origin
        lines = [f"**{plain(name)}** at ({', '.join(f'{v:.2f}' for v in place)}) m"]
        if label >= 0 and self._confidence is not None:
            lines.append(f"confidence {self._confidence[row]:.2f}")
        if self._features is not None and self._words and self._load_text is not None:
            self._text = self._text or self._load_text()
            own = self._features.row[self._kept[row]]
            one = PointFeatures(
                self._features.points[:1], self._features.colors[:1], np.zeros(1, np.int32),
                self._features.fused[own : own + 1], self._features.clip[own : own + 1],
                self._features.base[own : own + 1], self._features.view_count[own : own + 1], self._features.about,
            )  # fmt: skip
            answer = query_features(one, self._words, self._text)
            scores = answer.similarity[0]
            best = np.argsort(-scores)[:8]
            lines += ["", "| words | similarity |", "|---|---|"]
            lines += [f"| {plain(answer.phrases[i])} | {scores[i]:.3f} |" for i in best]
        return "\n".join(lines)

    def nearest_to_ray(self, origin: np.ndarray, direction: np.ndarray) -> int | None:
        """Return the first drawn point on a ray from the eye, or None."""
        offset, direction = self._points - origin, direction / np.linalg.norm(direction)
        along = offset @ direction
        away = np.linalg.norm(offset - along[:, None] * direction, axis=1)
        near = (along > 0) & (away < np.maximum(1.5 * self._spacing, 0.004 * along))
        near &= self._shown()
        if not near.any():
            return None
        return int(np.flatnonzero(near)[along[near].argmin()])

    def _build_panel(self, title: str) -> None:
        gui = self._server.gui
        gui.add_html(PHONE)
        gui.add_markdown(f"## {plain(title)}\n{len(self._points):,} points")
        start = "labels" if (self._labels >= 0).any() else "colours"
        if self._features is not None:
            asked = gui.add_text("ask", "", hint="a phrase, or several words with commas between them")
            answer = gui.add_button("answer")
            self._on_update(answer, one_of(True), "ask", lambda _: self.ask(asked.value))
            self._on_update(asked, text(MAX_TEXT), "ask", lambda _: self.ask(asked.value), PAUSE)
            self._name = gui.add_text("this is", "", hint="a name; then click what it is")
            self._guard.allow(self._name, text(MAX_NAME))
            self._on_update(gui.add_button("undo"), one_of(True), "undo", lambda _: self.undo())
        self._info = gui.add_markdown("Click a point to see its scores.")
        self._mode = gui.add_dropdown("show", self._modes, initial_value=start)
        self._bar = gui.add_html("")
        self._size = gui.add_slider("point size", *SIZES, 0.1, 1.0)
        low, top = float(self._low[2]), round(float(self._points[:, 2].max(initial=self._high[2])) + 0.01, 2)
        height = float(self._high[2]) - low
        cut = round(low + BELOW_CEILING * height, 2) if height > ROOM_HEIGHT else top  # a ceiling would hide the room
        self._cut = gui.add_slider("cut off above", round(low, 2), top, 0.01, cut)
        self._redraw(self._mode, one_of(*self._modes))
        self._redraw(self._size, number(*SIZES))
        self._redraw(self._cut, number(round(low, 2), top))
        views = gui.add_button_group("view", tuple(PRESETS))
        look = lambda event: self._look_from(event.client, views.value)  # noqa: E731
        self._on_update(views, one_of(*PRESETS), "view", look)
        self._on_update(gui.add_button("picture"), one_of(True), "picture", self._send_picture)
        self._folder = gui.add_folder("classes")
        self._ticks: list = []
        self._build_legend()
        self._signs = [] if self._objects is None else self._add_signs(self._objects)

    def _add_signs(self, objects: np.ndarray) -> list:
        """Show the names of the largest objects in the scene, each at the point nearest to the object's middle."""
        counts = np.bincount(objects[objects >= 0], minlength=len(self._object_titles))
        signs = []
        for chosen in np.argsort(-counts)[:MAX_SIGNS]:
            points = self._points[objects == chosen]
            if len(points):
                place = points[np.linalg.norm(points - points.mean(0), axis=1).argmin()]
                title = self._object_titles[chosen]
                signs.append(self._server.scene.add_label(f"/objects/{chosen}", title, position=tuple(place)))
        return signs

    def _redraw(self, control: Any, rule: Rule) -> None:
        self._on_update(control, rule, "draw", lambda _: self.update())

    def _on_update(self, control: Any, rule: Rule, kind: str, call: Callable, delay: float = 0) -> None:
        """Run `call` with the event when a client sets `control` to a value that `rule` accepts."""

        async def changed(event: viser.GuiEvent) -> None:
            self._later.put(kind, lambda: call(event), delay)

        self._guard.allow(control, rule)
        (control.on_click if hasattr(control, "on_click") else control.on_update)(changed)

    def _build_legend(self) -> None:
        """Build a check box for each class that occurs, with its colour and share."""
        for box in self._ticks:
            self._guard.forget(box)
        self._folder.remove()
        self._folder = self._server.gui.add_folder("classes")
        palette = class_palette(self._names)
        self._boxes = []
        with self._folder:
            for number, name in enumerate(self._names):
                share = float((self._labels == number).mean())
                red, green, blue = palette[number]
                if share:
                    style = f"width:90%;height:6px;margin:2px 5%;background:rgb({red},{green},{blue})"
                    self._server.gui.add_html(f'<div style="{style}"></div>')
                box = self._server.gui.add_checkbox(f"{name} ({share:.1%})", True, visible=share > 0)
                self._boxes.append(box)
            self._rest = self._server.gui.add_checkbox("unlabelled", True, visible=bool((self._labels < 0).any()))
        self._ticks = [*self._boxes, self._rest]
        for box in self._ticks:
            self._redraw(box, one_of(False, True))

    def _register_clicks(self) -> None:
        def explain(event) -> None:
            if event.ray_origin is not None and event.ray_direction is not None and any(event.ray_direction):
                row = self.nearest_to_ray(np.array(event.ray_origin), np.array(event.ray_direction))
                name = named(self._name.value) if self._features is not None else ""
                if row is not None and name:
                    self.correct(row, name)
                else:
                    self._info.content = "Nothing there." if row is None else self.explain(row)

        async def clicked(event: Any) -> None:
            self._later.put("click", lambda: explain(event))

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # older versions of viser do not have the newer name
            self._server.scene.on_pointer_event("click")(clicked)  # type: ignore[arg-type]  # coroutines may be given

    def _look_from(self, client: viser.ClientHandle | None, preset: str) -> None:
        if client is None or not len(self._points):
            return
        # A few distant points must not make the room tiny.
        middle, reach = (self._low + self._high) / 2, ZOOM * float(np.linalg.norm(self._high - self._low)) / 2
        client.camera.position = tuple(middle + reach * np.array(PRESETS[preset]))
        client.camera.look_at = tuple(middle)
        client.camera.up_direction = (0.0, 0.0, 1.0)

    def _send_picture(self, event: viser.GuiEvent) -> None:
        if event.client is None:
            return
        picture = io.BytesIO()
        Image.fromarray(event.client.get_render(1080, 1440)[..., :3]).save(picture, "PNG")
        event.client.send_file_download("scan.png", picture.getvalue())
