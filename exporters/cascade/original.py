"""A detector as its author exported it, run in ONNX Runtime one image at a time."""

from __future__ import annotations

from importlib import resources

import numpy as np

from dyninfer.errors import CheckpointError
from dyninfer.exporters.cascade.onnx_file import IMAGE_TYPES, OnnxFile
from dyninfer.exporters.cascade.options import Layout
from dyninfer.exporters.probe import open_model
from dyninfer.images.pictures import find_images, read_image
from dyninfer.types import AnyArray, Float32Array, ImageArray

Outputs = dict[str, AnyArray]


def sample_photos() -> list[ImageArray]:
    """The photographs that ship with the package, (h, w, 3) uint8 BGR."""
    with resources.as_file(resources.files("dyninfer.demo.assets") / "photos") as folder:
        return [read_image(path) for path in find_images(folder)]


class OriginalDetector:
    """Runs the file itself, with nothing of a bundle around it."""

    def __init__(self, file: OnnxFile, layout: Layout) -> None:
        self._file = file
        self._layout = layout
        self._dtype = np.dtype(IMAGE_TYPES[file.image.elem_type])
        # a file whose batch is fixed at 8 gets 8 copies of an image, and the first row is read
        self._copies = (file.image.shape[0] if file.image.shape else None) or 1
        try:
            self._session = open_model(file.model)
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"ONNX Runtime cannot open {file.path}: {reason}") from error

    def run(self, image: Float32Array) -> Outputs:
        """Outputs for one prepared image (1, 3, H, W) float32, by name.

        Raises:
            CheckpointError: the detector cannot run on an image of this size.
        """
        tensor = image if self._layout is Layout.NCHW else image.transpose(0, 2, 3, 1)
        tensor = np.ascontiguousarray(np.repeat(tensor, self._copies, 0).astype(self._dtype))
        names = [port.name for port in self._file.outputs]
        try:
            values = self._session.run(names, {self._file.image.name: tensor})
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            reason = str(error).splitlines()[0]
            height, width = image.shape[2:]
            raise CheckpointError(
                f"{self._file.path} cannot run on an image of {height}x{width}: {reason}; "
                "most detectors want sides that are multiples of 32"
            ) from error
        outputs = dict(zip(names, values, strict=True))
        if self._copies == 1:
            return outputs
        return {
            name: value[:1] if value.ndim and len(value) == self._copies else value
            for name, value in outputs.items()
        }
