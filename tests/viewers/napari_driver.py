"""Drives napari-nninteractive without a display: its own widget claims, uploads and prompts, and shows what it shows.

A program for an environment with napari, a Qt and napari-nninteractive: it needs nothing of this project. It reads an
order a line from standard input, a JSON list of a name and its arguments, and writes what the widget shows after it, a
JSON object a line.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
# Settings of the plugin of whoever runs this are neither read nor written.
os.environ["XDG_CONFIG_HOME"] = sys.argv[1]

import napari
import numpy as np
from napari._vispy.layers import image as vispy_image
from napari.utils import notifications
from napari_nninteractive.widget_main import nnInteractiveWidget
from qtpy.QtWidgets import QApplication
from vispy.gloo import gl

# Nothing is drawn: without a display there is no OpenGL to ask what it can.
gl.glGetParameter = lambda name: 2048
vispy_image.get_gl_extensions = lambda: ""

POINT, BBOX, SCRIBBLE, LASSO = range(4)
WAIT_SECONDS = 300.0

shown: list[str] = []


def record(notification: Any) -> None:
    """Remember a notification that napari shows."""
    shown.append(str(notification.message))


class Annotator:
    """The widget and its viewer."""

    def __init__(self) -> None:
        self.viewer = napari.Viewer(show=False)
        self.widget: Any = nnInteractiveWidget(self.viewer)
        self.viewer.window.add_dock_widget(self.widget)

    def begin(self, url: str, key: str, image: str) -> None:
        """Type the URL and the key, choose an image from a file, and press Initialize."""
        self.widget.mode_switch._uncheck()
        self.widget.mode_switch._check(1)
        self.widget.on_mode_switched()
        self.widget.server_url_edit.setText(url)
        self.widget.api_key_edit.setText(key)
        self.viewer.add_image(np.load(image), name="image")
        self.initialize()

    def initialize(self) -> None:
        """Press Initialize, and wait until the image is sent or an error is shown."""
        before = len(shown)
        self.widget.on_init_button()
        self.wait(lambda: self.is_ready() or (len(shown) > before and not self.is_busy()))

    def test_connection(self) -> None:
        """Press Connect, and wait for what it says."""
        self.widget.on_connect_toggle()
        self.wait(lambda: not self.is_busy())

    def is_busy(self) -> bool:
        """Whether a worker claims or uploads."""
        return not self.widget.connect_btn.isEnabled() or self.widget._upload_dialog is not None

    def is_ready(self) -> bool:
        """Whether prompts can be made."""
        return self.widget.session is not None and self.widget._session_locked and not self.is_busy()

    def wait(self, condition: Any) -> None:
        """Run Qt's events until the condition holds."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition() and time.monotonic() < deadline:
            QApplication.processEvents()
            time.sleep(0.01)

    def include(self, yes: bool) -> None:
        """Choose whether the next prompts include or exclude."""
        self.widget.prompt_button._uncheck()
        self.widget.prompt_button._check(0 if yes else 1)
        self.widget.on_prompt_selected()

    def select(self, tool: int) -> Any:
        """Choose a tool; returns its layer."""
        self.widget.interaction_button._uncheck()
        self.widget.interaction_button._check(tool)
        self.widget.on_interaction_selected()
        return self.viewer.layers[self.widget.layer_dict[tool]]

    def point(self, z: int, y: int, x: int) -> None:
        """Click with the point tool."""
        self.viewer.dims.set_point(0, z)
        self.select(POINT).add([z, y, x])

    def bbox(self, z: int, y: list[int], x: list[int]) -> None:
        """Draw a box in a slice."""
        self.viewer.dims.set_point(0, z)
        self.select(BBOX).add(corners(z, y, x), shape_type="rectangle")

    def lasso(self, z: int, y: list[int], x: list[int]) -> None:
        """Draw a lasso with four corners in a slice."""
        self.viewer.dims.set_point(0, z)
        self.select(LASSO).add(corners(z, y, x), shape_type="polygon")

    def scribble(self, z: int, y: int, x: list[int]) -> None:
        """Paint a stroke along x in a slice."""
        self.viewer.dims.set_point(0, z)
        layer = self.select(SCRIBBLE)
        layer.prompt_index = self.widget.prompt_button.index
        with layer.block_history():
            for at in range(*x):
                layer.paint([z, y, at], 1)
        layer._commit_staged_history()

    def undo(self) -> None:
        """Press Undo."""
        self.widget.on_undo()

    def reset(self) -> None:
        """Press Reset Object."""
        self.widget.on_reset_interactions()

    def next_object(self) -> None:
        """Press Next Object."""
        self.widget.on_next()

    def autozoom(self, on: bool) -> None:
        """Tick or untick Auto-zoom."""
        self.widget.propagate_ckbx.setChecked(on)
        self.widget.on_propagate_ckbx()

    def auto_run(self, on: bool) -> None:
        """Tick or untick Auto Run; without it prompts wait for Run."""
        self.widget.auto_run_ckbx.setChecked(on)

    def run(self) -> None:
        """Press Run."""
        self.widget.on_run()

    def quit(self) -> None:
        """Close the window, which releases the lease."""
        self.widget._release_session()

    def state(self, mask: str) -> dict[str, Any]:
        """Return what is shown, and write the mask to a file."""
        QApplication.processEvents()
        name = self.widget.label_layer_name
        if name in self.viewer.layers:
            np.save(mask, np.asarray(self.viewer.layers[name].data) > 0)
        lease = getattr(self.widget.session, "_lease_token", None)
        said, shown[:] = list(shown), []
        status = self.widget.remote_status_label.text()
        return {"ready": self.is_ready(), "lease": lease, "status": status, "shown": said}


def corners(z: int, y: list[int], x: list[int]) -> np.ndarray:
    """Return the corners of a rectangle in a slice."""
    return np.array([[z, y[0], x[0]], [z, y[0], x[1]], [z, y[1], x[1]], [z, y[1], x[0]]], float)


def main() -> None:
    """Obey until there are no more orders."""
    mask = sys.argv[2]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # napari and the plugin print
    notifications.notification_manager.notification_ready.connect(record)
    annotator = Annotator()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        raised = ""
        try:
            getattr(annotator, name)(*arguments)
        except Exception as error:  # what Qt would show in a dialog
            raised = f"{type(error).__name__}: {error}"
        print(json.dumps({**annotator.state(mask), "raised": raised}), file=answers, flush=True)


if __name__ == "__main__":
    main()
