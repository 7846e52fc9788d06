"""One build of a mix, of stages in int8 that come from the builds of several backends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dyninfer.builds.files import Converted
from dyninfer.builds.spec import FOR_OPENVINO, IO, JOINED, BuildSpec, OpenBuild, made_for_openvino
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.inside import file_sha256
from dyninfer.exporters.precision.travel import rewrite_travel


def joined_spec(wanted: BuildSpec, sources: Mapping[str, OpenBuild]) -> BuildSpec:
    """The build that these files make: in 8 bits for the backend that each was made for."""
    placed = [
        name for name, source in sources.items() if name in made_for_openvino(source.build.spec)
    ]
    options = {FOR_OPENVINO: ",".join(placed)} if placed else {}
    return wanted.model_copy(update={"options": options})


def joined_files(bundle: Bundle, sources: Mapping[str, OpenBuild], folder: Path) -> Converted:
    """Stages of builds, each from its own; of several, no parity is that of the whole."""
    found = {name: source.onnx_path(name) for name, source in sources.items()}
    files, tensors = rewrite_travel(
        bundle,
        {name: path for name, path in found.items() if path is not None},
        folder,
        pixels=False,
        maps="int8",
        have={name: source.build.tensors for name, source in sources.items()},
    )
    builds = {source.path: source for source in sources.values()}
    first, *others = builds.values()
    conversion = first.build.conversion
    if conversion is not None:
        kept = {
            name: source.build.conversion.kept_high[name]
            for name, source in sources.items()
            if source.build.conversion and name in source.build.conversion.kept_high
        }
        conversion = conversion.model_copy(update={"kept_high": kept})
        if others:  # they may be made with other pictures
            conversion = conversion.model_copy(update={"images_sha256": None, "image_count": 0})
    return Converted(
        files,
        {name: file_sha256(path) for name, path in files.items()},
        conversion,
        None if others else first.parity(),
        tensors,
        {IO: "int8", JOINED: "auto"},
    )
