"""Stages whose pictures come as pixels, and whose maps travel in float16."""

from __future__ import annotations

import shutil
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import dyninfer
from dyninfer.builds.builder import ConversionBuilder
from dyninfer.builds.files import Converted, Making
from dyninfer.builds.spec import INPUT, IO, parse_precision
from dyninfer.bundle.documents import dump_sealed, load_sealed
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import EightBits, Precision, QuantisedSpec
from dyninfer.errors import BundleError, InputError
from dyninfer.exporters.dynamicdet.export import DYNAMICDET
from dyninfer.exporters.graphs import open_model
from dyninfer.exporters.parity import as_meant
from dyninfer.exporters.precision import eight_bit_maps, travel
from dyninfer.exporters.precision.convert import convert_bundle_stages
from dyninfer.exporters.precision.measure import measure_engines
from dyninfer.exporters.precision.settings import Int8Settings, Int8Target
from dyninfer.exporters.precision.travel import rewrite_travel
from dyninfer.exporters.verify import verify
from tests import support

PICTURES = support.random_pictures(5)
POLICIES = (dyninfer.AlwaysEasy(), dyninfer.AlwaysHard(), dyninfer.Forced([0, 1, 1, 0, 1]))


@pytest.fixture(scope="module")
def half(small_bundle, tmp_path_factory) -> tuple[Bundle, dict[str, Path]]:
    """A bundle, and its stages in float16."""
    folder = tmp_path_factory.mktemp("half")
    bundle = Bundle.open(Path(shutil.copytree(small_bundle, folder / "small.dyn")))
    plan = parse_precision("fp16", bundle.manifest)
    made = convert_bundle_stages(bundle, plan, PICTURES, folder)
    own = {name: entry.sha256 for name, entry in bundle.manifest.stages.items()}
    return bundle, {name: s.path for name, s in made.items() if s.sha256 != own[name]}


def lean(bundle: Bundle, files: dict[str, Path], folder: Path, *, pixels: bool, half: bool) -> None:
    """Make a build of these files that travels in fewer bytes."""
    maps = "fp16" if half else None
    written, types = rewrite_travel(bundle, files, folder, pixels=pixels, maps=maps)
    travel = ({INPUT: "uint8"} if pixels else {}) | ({IO: "fp16"} if half else {})
    precision = parse_precision("fp16", bundle.manifest)
    builder = ConversionBuilder(travel)
    wanted = builder.wanted(bundle.manifest, precision, 8)
    builder.make(bundle, wanted, Making(Converted(written, tensors=types, options=travel)))


def found_by(path: Path) -> list[list[dyninfer.RawOutput]]:
    with dyninfer.load(path, precision="fp16") as detector:
        images = detector.prepare(PICTURES)
        return [detector.infer(images, policy=policy) for policy in POLICIES]


def assert_close(found: list, expected: list) -> None:
    """As far as float16 goes: ONNX Runtime rounds only what leaves a stage."""
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert one.exit_index == other.exit_index
            assert one.easiness == pytest.approx(other.easiness, abs=2e-3)
            for name, atol in (("boxes_xyxy", 0.5), ("class_scores", 2e-3)):
                assert other.outputs[name].std() > 0
                np.testing.assert_allclose(one.outputs[name], other.outputs[name], atol=atol)


def test_a_bundle_finds_the_same_with_maps_in_float16_and_with_pixels(half, tmp_path) -> None:
    bundle, files = half
    lean(bundle, files, tmp_path, pixels=False, half=False)
    expected = found_by(bundle.path)
    lean(bundle, files, tmp_path, pixels=False, half=True)
    with dyninfer.load(bundle.path, precision="fp16") as detector:
        made = {spec.name: spec for spec in detector.manifest.stages["first"].outputs}
        assert {s.dtype for s in made.values() if len(s.shape) == 4} == {"float16"}
        assert made["pooled"].dtype == "float32"  # the router decides by these few numbers
        assert detector.manifest.image_tensors["images"].dtype == "float32"
    assert_close(found_by(bundle.path), expected)
    lean(bundle, files, tmp_path, pixels=True, half=True)
    assert_close(found_by(bundle.path), expected)


def test_a_build_that_takes_pixels_is_told_and_fed_pixels(
    half, small_checkpoint, small_yaml, tmp_path
) -> None:
    bundle, _ = half
    shutil.rmtree(bundle.path / "engines", ignore_errors=True)
    lean(bundle, {}, tmp_path, pixels=True, half=False)
    with dyninfer.load(bundle.path, precision="fp16") as detector:
        images = detector.prepare(PICTURES)
        assert images["images"].dtype == np.uint8
        with support.refuses(InputError, "images float32", "expected uint8"):
            detector.infer({"images": images["images"].astype(np.float32)})
        with dyninfer.load(bundle.path) as plain:
            prepared = plain.prepare(PICTURES)["images"]
            spec = plain.manifest.image_inputs["images"]
            np.testing.assert_allclose(spec.normalised(images["images"]), prepared, atol=1e-6)
            pairs = zip(detector.infer(images), plain.infer({"images": prepared}), strict=True)
            for ours, theirs in pairs:
                assert ours.easiness == pytest.approx(theirs.easiness, abs=1e-5)
                for name, array in theirs.outputs.items():
                    np.testing.assert_allclose(ours.outputs[name], array, atol=1e-3)
        frames = list(detector.stream(PICTURES))
        for one, other in zip(frames, detector(PICTURES), strict=True):
            assert np.array_equal(one.boxes_xyxy, other.boxes_xyxy)
        source = DYNAMICDET.source_stages(bundle, [small_checkpoint], small_yaml)
        assert verify(detector, source, PICTURES[:2], 2).passed


@pytest.mark.parametrize("mean", [(0.0, 0.0, 0.0), (103.53, 116.28, 123.675)])
def test_a_stage_normalises_its_pixels_as_the_bundle_says(tmp_path, mean) -> None:
    path = support.write_static(tmp_path / "static.dyn")
    std = (57.375, -57.12, 58.395)

    def change(document: dict) -> None:
        document["image_inputs"]["images"] |= {"mean": mean, "std": std}

    support.reseal(path, change)
    bundle = Bundle.open(path)
    (body,) = bundle.manifest.stages
    written, types = rewrite_travel(bundle, {}, tmp_path, pixels=True, maps="fp16")
    assert types == {"images": "uint8"}
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), np.uint8)
    images = (pixels - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    found = open_model(onnx.load(written[body])).run(None, {"images": pixels})
    own = open_model(onnx.load(bundle.stage_path(body)))
    for ours, theirs in zip(
        found, own.run(None, {"images": images.astype(np.float32)}), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_what_was_computed_in_float32_travels_so(small_bundle, tmp_path) -> None:
    """In no stage of the bundle's own, nor a map of which values are beyond float16."""
    bundle = Bundle.open(small_bundle)
    assert rewrite_travel(bundle, {}, tmp_path, pixels=False, maps="fp16") == ({}, {})
    head = {
        "head": convert_bundle_stages(
            bundle, parse_precision("head=fp16", bundle.manifest), PICTURES, tmp_path
        )["head"].path
    }
    assert rewrite_travel(bundle, head, tmp_path, pixels=False, maps="fp16") == (head, {})


EIGHT_BITS = {"scale": 0.5, "zero_point": 3}
LAST = EIGHT_BITS | {"channels_last": True}


@pytest.mark.parametrize(
    "types",
    [
        {"boxes_xyxy": "uint8"},
        {"pooled": "uint8"},
        {"boxes_xyxy": EIGHT_BITS},
        {"pooled": EIGHT_BITS},
        {"images": EIGHT_BITS},
        {"pooled": LAST},
        {"images": LAST},
    ],
)
def test_a_build_cannot_make_other_tensors_pixels(half, tmp_path, types) -> None:
    bundle, files = half
    shutil.rmtree(bundle.path / "engines", ignore_errors=True)
    lean(bundle, files, tmp_path, pixels=True, half=False)
    (folder,) = (path for path in (bundle.path / "engines").iterdir() if path.is_dir())
    record = load_sealed(folder / "build.json")
    record["tensors"] = types
    (folder / "build.json").write_text(dump_sealed(record))
    with support.refuses(BundleError, folder.name, "does not fit", "build it again"):
        dyninfer.load(bundle.path, precision="fp16")


TARGETS = pytest.mark.parametrize("target", [Int8Target.CPU, Int8Target.OPENVINO])


@pytest.fixture(scope="module")
def eight(small_bundle, tmp_path_factory) -> dict[Int8Target, dict[str, Path]]:
    """Stages in int8, with maps in float32."""
    bundle, found = Bundle.open(small_bundle), {}
    plan = parse_precision("int8", bundle.manifest)
    for target in (Int8Target.CPU, Int8Target.OPENVINO):
        folder = tmp_path_factory.mktemp(target.value)
        made = convert_bundle_stages(bundle, plan, PICTURES, folder, Int8Settings(target=target))
        found[target] = {n: s.path for n, s in made.items() if s.precision is Precision.INT8}
    return found


def answers(path: Path, backend: str, precision: str = "int8") -> list[list[dyninfer.RawOutput]]:
    with dyninfer.load(path, backend=backend, precision=precision) as detector:
        images = detector.prepare(PICTURES)
        return [detector.infer(images, policy=policy) for policy in POLICIES]


def keep(bundle: Bundle, files: dict[str, Path], types: dict, precision: str = "int8") -> None:
    builder = ConversionBuilder({IO: "int8"} if types else {})
    wanted = builder.wanted(bundle.manifest, parse_precision(precision, bundle.manifest), 8)
    builder.make(bundle, wanted, Making(Converted(files, tensors=types)))


def assert_equal(found: list, expected: list) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            assert (one.exit_index, one.easiness) == (other.exit_index, other.easiness)
            for name, array in other.outputs.items():
                assert np.array_equal(one.outputs[name], array)


@TARGETS
def test_maps_in_8_bits_are_the_same_numbers(small_bundle, eight, tmp_path, target) -> None:
    bundle = Bundle.open(Path(shutil.copytree(small_bundle, tmp_path / "small.dyn")))
    keep(bundle, eight[target], {})
    expected = answers(bundle.path, "onnxruntime")
    written, types = rewrite_travel(bundle, eight[target], tmp_path, pixels=False, maps="int8")
    maps = {s.name for s in bundle.manifest.stages["first"].outputs if len(s.shape) == 4}
    if target is Int8Target.OPENVINO:  # one stage rounds it as what it is joined to, one as it is
        maps -= {"feature_5"}
    assert types.keys() == maps
    keep(bundle, written, types)
    assert_equal(answers(bundle.path, "onnxruntime"), expected)
    with dyninfer.load(bundle.path, precision="int8") as detector:
        made = {spec.name: spec for spec in detector.manifest.stages["first"].outputs}
        assert {name for name, spec in made.items() if spec.dtype == "uint8"} == maps
        for spec in bundle.manifest.stages["first"].outputs:
            if spec.name in maps:
                batch, channels, *sides = spec.shape
                assert made[spec.name].shape == (batch, *sides, channels)
        report = measure_engines(detector, PICTURES[:2])
    assert all(0 < error.mean_rel < 0.2 for error in report.tensors if error.stage == "first")
    have = dict.fromkeys(written, types)
    back = tmp_path / "back"
    back.mkdir()
    again, none = rewrite_travel(bundle, written, back, pixels=False, maps=None, have=have)
    assert not none
    shutil.rmtree(bundle.path / "engines")
    keep(bundle, again, {})
    assert_equal(answers(bundle.path, "onnxruntime"), expected)


def maps_of(path: Path, backend: str) -> tuple[Path, dict[str, np.ndarray]]:
    """The build that is opened, and what its first stage makes, as it is meant."""
    with dyninfer.load(path, backend=backend, precision="int8") as detector:
        made = detector.run_stage("first", detector.prepare(PICTURES))
        assert detector.build is not None
        return detector.build.path, as_meant(detector.manifest, "first", made)


def test_openvino_makes_maps_in_8_bits_that_are_at_most_a_step_off(
    small_bundle, eight, tmp_path
) -> None:
    pytest.importorskip("openvino")
    bundle = Bundle.open(Path(shutil.copytree(small_bundle, tmp_path / "small.dyn")))
    files = eight[Int8Target.OPENVINO]
    keep(bundle, files, {})
    usual, exact = maps_of(bundle.path, "openvino")
    written, types = rewrite_travel(bundle, files, tmp_path, pixels=False, maps="int8")
    keep(bundle, written, types)
    build, made = maps_of(bundle.path, "openvino")
    assert build != usual
    for name, bits in types.items():
        spec = QuantisedSpec(name=name, dtype="uint8", shape=exact[name].shape, bits=bits)
        codes, wanted = spec.taken(made[name]).astype(int), spec.taken(exact[name]).astype(int)
        assert len(np.unique(codes)) > 20
        assert np.abs(codes - wanted).max() <= 1
        assert (codes != wanted).mean() < 1e-3
    for name in exact.keys() - types.keys():
        np.testing.assert_allclose(made[name], exact[name], atol=0.02 * np.abs(exact[name]).max())


def test_stages_of_builds_from_different_pictures_go_together(
    small_bundle, eight, tmp_path
) -> None:
    """Every mix of two builds is a chain whose maps are as its own stages need them."""
    bundle = Bundle.open(Path(shutil.copytree(small_bundle, tmp_path / "small.dyn")))
    plan, others = parse_precision("int8", bundle.manifest), support.random_pictures(2, seed=7)
    (tmp_path / "other").mkdir()
    made = convert_bundle_stages(
        bundle, plan, others, tmp_path / "other", Int8Settings(target=Int8Target.OPENVINO)
    )
    theirs = {n: s.path for n, s in made.items() if s.precision is Precision.INT8}
    ours, files, have = eight[Int8Target.CPU], {}, {}
    for key, plain in (("ours", ours), ("theirs", theirs)):
        (tmp_path / key).mkdir()
        files[key], types = rewrite_travel(bundle, plain, tmp_path / key, pixels=False, maps="int8")
        assert types
        have[key] = types
    for number, keys in enumerate(product(files, repeat=3)):
        chosen = dict(zip(("first", "head", "second"), keys, strict=True))
        folder = tmp_path / str(number)
        folder.mkdir()
        written, types = rewrite_travel(
            bundle,
            {stage: files[key][stage] for stage, key in chosen.items()},
            folder,
            pixels=False,
            maps="int8",
            have={stage: have[key] for stage, key in chosen.items()},
        )
        plain = {
            stage: {"ours": ours, "theirs": theirs}[key][stage] for stage, key in chosen.items()
        }
        results = []
        for kept, tensors in ((plain, {}), (written, types)):
            shutil.rmtree(bundle.path / "engines", ignore_errors=True)
            keep(bundle, kept, tensors)
            results.append(answers(bundle.path, "onnxruntime"))
        assert_equal(*reversed(results))


def channels_second(*args) -> dict[str, EightBits]:
    found = eight_bit_maps.maps_in_8_bits(*args)
    return {name: bits.model_copy(update={"channels_last": False}) for name, bits in found.items()}


@TARGETS
def test_builds_with_channels_second_are_run_and_go_together_with_those_with_channels_last(
    small_bundle, eight, tmp_path, monkeypatch, target
) -> None:
    bundle = Bundle.open(Path(shutil.copytree(small_bundle, tmp_path / "small.dyn")))
    keep(bundle, eight[target], {})
    expected = answers(bundle.path, "onnxruntime")
    folders = [tmp_path / name for name in ("before", "since", "mixed")]
    for folder in folders:
        folder.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(travel, "maps_in_8_bits", channels_second)
        before, second = rewrite_travel(
            bundle, eight[target], folders[0], pixels=False, maps="int8"
        )
    since, last = rewrite_travel(bundle, eight[target], folders[1], pixels=False, maps="int8")
    assert second.keys() == last.keys()
    assert second != last
    mixed = rewrite_travel(
        bundle,
        before | {"second": since["second"]},
        folders[2],
        pixels=False,
        maps="int8",
        have={"first": second, "head": second, "second": last},
    )
    assert mixed[1] == last
    for files, types in ((before, second), mixed):
        shutil.rmtree(bundle.path / "engines")
        keep(bundle, files, types)
        assert_equal(answers(bundle.path, "onnxruntime"), expected)


def test_a_map_that_somebody_reads_in_float32_travels_so(small_bundle, eight, tmp_path) -> None:
    bundle, files = Bundle.open(small_bundle), dict(eight[Int8Target.CPU])
    read = {n: {s.name for s in bundle.manifest.stages[n].inputs} for n in ("head", "second")}
    del files["head"]
    _, types = rewrite_travel(bundle, files, tmp_path, pixels=False, maps="int8")
    assert types.keys() == read["second"] - read["head"] - {"images"}
    del files["second"]
    assert rewrite_travel(bundle, files, tmp_path, pixels=False, maps="int8") == (files, {})
    files = {name: eight[Int8Target.CPU][name] for name in ("head", "second")}  # the maker is not
    _, types = rewrite_travel(bundle, files, tmp_path, pixels=False, maps="int8")
    assert types


@given(
    st.floats(2**-99, 2**99, width=32),
    st.integers(0, 255),
    st.lists(st.integers(0, 255), min_size=1, max_size=9),
)
def test_8_bits_are_what_they_mean(scale, zero_point, numbers) -> None:
    bits = EightBits(scale=scale, zero_point=zero_point)
    spec = QuantisedSpec(name="map", dtype="uint8", shape=("batch", 1, 1, "n"), bits=bits)
    array = np.array(numbers, np.uint8)
    assert np.array_equal(spec.taken(spec.meant(array)), array)
    assert spec.taken(np.array([np.inf, -np.inf], np.float32)).tolist() == [255, 0]
    last = QuantisedSpec.model_validate(
        spec.model_dump() | {"bits": bits.model_copy(update={"channels_last": True})}
    )
    pixels = np.stack([array, array[::-1]], -1)[None, None]  # (1, 1, n, 2)
    planes = last.meant(pixels)
    assert np.array_equal(planes[0, 0, 0], spec.meant(array))
    assert np.array_equal(last.taken(planes), pixels)


@pytest.mark.parametrize(
    "bits", [{"scale": 0}, {"scale": np.inf}, {"zero_point": 256}, {"zero_point": -1}]
)
def test_8_bits_that_mean_nothing_are_refused(bits) -> None:
    with pytest.raises(ValidationError):
        EightBits.model_validate({"scale": 1.0, "zero_point": 0} | bits)
