"""The recipe of the shipped models that find everyday things, from NanoDet-g as it is published.

    python -m training.everyday nanodet_dyn.onnx photos/ labels.json everyday-bundles

One network at several sizes, twice: as a cascade, with a router, and as a select route, with a
chooser. Both keep their weights, which stay in float16, in the same file. Router and chooser are
fitted to the labelled photos and compared with other choices by cross-validation; the same files
give the same bundles. ``training.pack`` puts them into the package.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest, Stage
from dyninfer.bundle.unfinished import scratch_folder
from dyninfer.bundle.writing import write_bundle
from dyninfer.cli.common import built_in_photos
from dyninfer.cli.fit_chooser import print_chooser
from dyninfer.cli.fit_router import print_comparison
from dyninfer.cli.verify import conclude, run_verification
from dyninfer.evaluation.dataset import load_samples
from dyninfer.evaluation.router_quality import Metric
from dyninfer.exporters.cascade.export import (
    CascadeOptions,
    OnnxOptions,
    export_cascade,
    export_onnx,
)
from dyninfer.exporters.cascade.options import DetectorSource
from dyninfer.exporters.router.choosing import fit_chooser, refuse_useless_chooser
from dyninfer.exporters.router.fit import FitOptions, fit_routers, refuse_useless
from dyninfer.exporters.router.write import write_chosen, write_routed
from dyninfer.exporters.shared_weights import share_weights
from dyninfer.images.folders import find_images
from dyninfer.images.spec import ResizeMode
from dyninfer.runtime.opening import load

CASCADE, SIZES = "everyday", "everyday-sizes"
LICENCE = "Apache-2.0"
EXITS = ((224, ResizeMode.STRETCH), (416, ResizeMode.LETTERBOX))
BRANCHES = (160, 224, 320, 416)
HARD_SHARE = 0.25
"""Of photos that go on unless told otherwise: the better one of those that are cross-validated."""
RANDOM_TENSORS = 4


def make(network: Path, photos: Path, labels: Path, output: Path) -> None:
    """Write ``everyday.dyn`` and ``everyday-sizes.dyn`` into the folder ``output``.

    Raises:
        DyninferError: a router or chooser is no better than random choice, the network is another
            one, or something cannot be written.
    """
    with scratch_folder() as scratch:
        plain = _export(network, scratch / "plain")
        fitted = _fit(plain, photos, labels, scratch / "fitted")
        written = _share(fitted, scratch / "shared", output)
    for bundle in written:
        parity, _ = run_verification(bundle, [network], None, built_in_photos(), RANDOM_TENSORS)
        conclude(bundle, parity)


def _export(network: Path, folder: Path) -> Sequence[Path]:
    """The network as a cascade without a router, and as branches without a chooser."""
    cascade, sizes = folder / f"{CASCADE}.dyn", folder / f"{SIZES}.dyn"
    exits = [DetectorSource(network, size=(side, side), resize=fit) for side, fit in EXITS]
    export_cascade(exits, cascade, CascadeOptions(licence=LICENCE))
    branches = tuple((side, side) for side in BRANCHES)
    export_onnx(DetectorSource(network), sizes, OnnxOptions(licence=LICENCE, sizes=branches))
    return cascade, sizes


def _fit(plain: Sequence[Path], photos: Path, labels: Path, folder: Path) -> Sequence[Bundle]:
    """Both with what decides; the comparisons are printed."""
    options = FitOptions(metric=Metric.AP50, hard_share=HARD_SHARE)
    cascade, sizes = plain
    with load(cascade) as detector:
        samples = load_samples(find_images(photos), labels, detector.class_names)
        routers = fit_routers(detector, samples, options)
        print_comparison(routers)
        refuse_useless(routers)
        write_routed(
            detector.bundle,
            folder / cascade.name,
            [entry.router for entry in routers.exits],
            routers.record,
        )
    with load(sizes) as detector:
        chooser = fit_chooser(detector, samples, options)
        print_chooser(chooser)
        refuse_useless_chooser(chooser)
        write_chosen(detector.bundle, folder / sizes.name, chooser)
    return [Bundle.open(folder / path.name) for path in plain]


def _share(bundles: Sequence[Bundle], scratch: Path, output: Path) -> list[Path]:
    """The bundles with one file of weights, which is the same in each."""
    for bundle in bundles:
        for name in bundle.manifest.stages:
            bundle.copy_stage(name, scratch)
    of_all = {name: s for bundle in bundles for name, s in bundle.manifest.stages.items()}
    shared = share_weights(scratch, of_all)
    return [_write(bundle, shared, scratch, output) for bundle in bundles]


def _write(bundle: Bundle, shared: Mapping[str, Stage], scratch: Path, output: Path) -> Path:
    stages = {name: shared[name] for name in bundle.manifest.stages}
    manifest = bundle.manifest.model_copy(update={"stages": stages})

    def write(folder: Path) -> Manifest:
        for file in {each.file for stage in stages.values() for each in stage.files}:
            (folder / file).parent.mkdir(exist_ok=True)
            shutil.copyfile(scratch / file, folder / file)
        return manifest

    path = output / bundle.path.name
    write_bundle(path, write, overwrite=True, router_record=bundle.router_record())
    return path


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", type=Path, help="nanodet_dyn.onnx, NanoDet-g of any image size")
    parser.add_argument("photos", type=Path, help="folder")
    parser.add_argument("labels", type=Path, help="of the photos, in COCO's format")
    parser.add_argument("output", type=Path, help="folder for both bundles")
    given = parser.parse_args()
    make(given.network, given.photos, given.labels, given.output)


if __name__ == "__main__":
    main()
