"""Put bundles into the package, each stage's file once: ``python -m training.pack BUNDLE...``."""

from __future__ import annotations

import gzip
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from dyninfer.bundle.folder import MANIFEST_FILE, PARITY_FILE, ROUTER_FILE, Bundle
from dyninfer.bundle.shipped import PACKED, SHIPPED, packed_file

_DOCUMENTS = (MANIFEST_FILE, PARITY_FILE, ROUTER_FILE)


def pack(bundles: Sequence[Path]) -> None:
    """Replace the shipped models of these bundles' names; files that no model uses any more go.

    Raises:
        BundleError: a bundle is damaged.
        KeyError: no shipped model is called like one.
    """
    for path in bundles:
        bundle = Bundle.open(path)
        model = SHIPPED[bundle.manifest.name]
        shutil.rmtree(model.folder, ignore_errors=True)
        model.folder.mkdir(parents=True)
        for name in _DOCUMENTS:
            if (path / name).exists():
                shutil.copyfile(path / name, model.folder / name)
        for stage in bundle.manifest.stages.values():
            for file in stage.files:
                packed = packed_file(file.sha256)
                packed.parent.mkdir(exist_ok=True)
                packed.write_bytes(gzip.compress((path / file.file).read_bytes(), mtime=0))
    present = (model for model in SHIPPED.values() if model.folder.is_dir())
    used = {path for model in present for path in model.files().values()}
    for path in {*PACKED.glob("files/*")} - used:
        path.unlink()


if __name__ == "__main__":
    pack([Path(argument) for argument in sys.argv[1:]])
