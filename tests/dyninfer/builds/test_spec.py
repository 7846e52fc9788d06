from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dyninfer.builds.files import Converted, Making, make_build
from dyninfer.builds.search import (
    describe_differences,
    differences,
    find_build,
    find_converted,
    list_builds,
    nearest_build,
    read_build,
)
from dyninfer.builds.spec import (
    BUILD_FILE,
    HARDWARE_COMPATIBLE,
    VERSION_COMPATIBLE,
    Build,
    BuildSpec,
    BuildTarget,
    describe_plan,
    own_precision,
    parse_precision,
    source_hashes,
)
from dyninfer.bundle.documents import SEAL, dump_sealed
from dyninfer.bundle.folder import Bundle
from dyninfer.bundle.manifest import Manifest, Precision
from dyninfer.engines.trt.targets import BatchProfile
from dyninfer.errors import BundleError, InputError
from tests import support

LINUX = "Linux x86_64"


def gpu(capability: str, name: str, multiprocessors: int, memory_gib: int) -> BuildTarget:
    return BuildTarget(
        compute_capabilities=(capability,),
        system=LINUX,
        gpu_name=name,
        multiprocessors=multiprocessors,
        memory_gib=memory_gib,
    )


RTX3090 = gpu("8.6", "RTX 3090", 82, 24)
T4, L4 = gpu("7.5", "T4", 40, 16), gpu("8.9", "L4", 58, 24)
AMPERE_ADA = BuildTarget(compute_capabilities=("8.6", "8.9"), system=LINUX)
BATCH = BatchProfile(minimum=1, optimum=4, maximum=16)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return Bundle.open(support.write_two_exits(tmp_path / "two.dyn"))


def spec_of(bundle: Bundle, **changes: object) -> BuildSpec:
    values = {
        "backend": "tensorrt",
        "library_version": "10.4.0",
        "target": RTX3090,
        "batch": BATCH,
        "precision": own_precision(bundle.manifest),
        "stages_sha256": source_hashes(bundle.manifest),
    }
    return BuildSpec.model_validate(values | changes)


def build_in(bundle: Bundle, **changes: object) -> Build:
    spec = spec_of(bundle, **changes)
    return make_build(bundle, spec, make_engine=lambda name, _: name.encode()).build


def fields(built: BuildSpec, wanted: BuildSpec) -> list[str]:
    return [difference.field for difference in differences(built, wanted)]


def test_a_bundle_without_builds_has_none(bundle: Bundle) -> None:
    assert list_builds(bundle) == ({}, [])
    assert find_build(bundle, spec_of(bundle)) is None
    assert nearest_build(bundle, spec_of(bundle)) is None


def test_a_build_is_found_by_what_it_is(bundle: Bundle) -> None:
    build_in(bundle)

    found = find_build(bundle, spec_of(bundle))

    assert found is not None
    assert found.path == bundle.path / "engines" / spec_of(bundle).folder_name
    assert found.stage_path("head").read_bytes() == b"head"
    assert found.onnx_path("head") is None
    assert found.build.onnx_sha256() == source_hashes(bundle.manifest)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("backend", "tensorrt-rtx"),
        ("library_version", "10.4.1"),
        ("target", RTX3090.model_copy(update={"multiprocessors": 68})),
        ("target", RTX3090.model_copy(update={"memory_gib": 12})),
        ("target", RTX3090.model_copy(update={"system": "Linux aarch64"})),
        ("target", RTX3090.model_copy(update={"gpu_name": "RTX 3080"})),
        ("target", RTX3090.model_copy(update={"compute_capabilities": ("8.0",)})),
        ("batch", BatchProfile(minimum=1, optimum=4, maximum=17)),
        ("batch", None),
        ("options", {"workspace_bytes": "1"}),
    ],
)
def test_whatever_differs_keeps_a_build_from_being_used(
    bundle: Bundle, field: str, value: object
) -> None:
    build_in(bundle)
    wanted = spec_of(bundle, **{field: value})

    assert find_build(bundle, wanted) is None
    assert fields(spec_of(bundle), wanted) == [field]
    assert wanted.fingerprint != spec_of(bundle).fingerprint


def test_other_stages_or_another_precision_do_not_fit(bundle: Bundle) -> None:
    wanted = spec_of(
        bundle,
        precision=own_precision(bundle.manifest) | {"head": Precision.FP16},
        stages_sha256=source_hashes(bundle.manifest) | {"head": "0" * 64},
    )

    assert fields(spec_of(bundle), wanted) == ["precision", "stages_sha256"]
    message = describe_differences(spec_of(bundle), wanted)
    for part in ("built fp32, wanted first=fp32", "head=fp16", "head=00000000"):
        assert part in message


def test_what_was_built_without_a_gpu_fits_every_gpu_of_its_kind(bundle: Bundle) -> None:
    built = spec_of(bundle, target=AMPERE_ADA)

    assert not differences(built, spec_of(bundle))
    assert not differences(built, spec_of(bundle, target=AMPERE_ADA))
    assert fields(built, spec_of(bundle, target=T4)) == ["target"]
    assert fields(spec_of(bundle), built) == ["target"]


def test_compatible_builds_fit_later_versions_and_gpus(bundle: Bundle) -> None:
    later = spec_of(bundle, library_version="10.13.3")
    assert not differences(spec_of(bundle, options={VERSION_COMPATIBLE: "yes"}), later)
    earlier = spec_of(bundle, library_version="10.3.0")
    assert fields(spec_of(bundle, options={VERSION_COMPATIBLE: "yes"}), earlier)
    assert not differences(spec_of(bundle, options={VERSION_COMPATIBLE: "yes"}), spec_of(bundle))

    portable = spec_of(bundle, options={HARDWARE_COMPATIBLE: "yes"})
    assert not differences(portable, spec_of(bundle, target=L4))
    assert fields(portable, spec_of(bundle, target=T4)) == ["target"]


@pytest.mark.parametrize("target", [AMPERE_ADA, RTX3090])
def test_no_engine_moves_to_another_system(bundle: Bundle, target: BuildTarget) -> None:
    for system in ("Linux aarch64", "Windows AMD64"):
        elsewhere = RTX3090.model_copy(update={"system": system})
        for options in ({}, {HARDWARE_COMPATIBLE: "yes"}):
            built = spec_of(bundle, target=target, options=options)
            assert fields(built, spec_of(bundle, target=elsewhere)) == ["target"]


@pytest.mark.parametrize(
    ("built", "wanted", "fits"),
    [
        ("8.6.1", "10.13.3", True),
        ("10.4.0", "11.4.1", True),
        ("8.6.1", "11.4.1", False),
        ("11.0.0", "11.4.1", True),
        ("11.4.1", "12.0.0", False),
    ],
)
def test_a_compatible_build_is_opened_by_its_own_and_the_next_major_version(
    bundle: Bundle, built: str, wanted: str, fits: bool
) -> None:
    compatible = spec_of(bundle, library_version=built, options={VERSION_COMPATIBLE: "yes"})
    other = spec_of(bundle, library_version=wanted)

    assert fields(compatible, other) == ([] if fits else ["library_version"])


def test_a_wider_batch_range_fits_and_the_narrowest_of_these_is_taken(bundle: Bundle) -> None:
    for maximum in (32, 8, 16):
        build_in(bundle, batch=BatchProfile(minimum=1, optimum=1, maximum=maximum))

    wanted = spec_of(bundle, batch=BatchProfile(minimum=1, optimum=4, maximum=12))
    found = find_build(bundle, wanted)

    assert found is not None
    assert found.build.spec.batch is not None
    assert found.build.spec.batch.maximum == 16


def test_the_very_build_is_taken_before_one_for_its_kind(bundle: Bundle) -> None:
    build_in(bundle, target=AMPERE_ADA)
    build_in(bundle)

    found = find_build(bundle, spec_of(bundle))

    assert found is not None
    assert found.build.spec.target == RTX3090


def test_a_changed_missing_or_linked_engine_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    build_in(bundle)
    (engine,) = (bundle.path / "engines").glob("*/*head.engine")

    engine.write_bytes(b"HEAD")
    with support.refuses(BundleError, str(engine), "was changed after it was built", "--force"):
        find_build(bundle, spec_of(bundle))
    engine.unlink()
    with support.refuses(BundleError, str(engine), "missing"):
        find_build(bundle, spec_of(bundle))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"head")
    engine.symlink_to(elsewhere)
    with support.refuses(BundleError, str(engine), "link"):
        find_build(bundle, spec_of(bundle))


def test_a_changed_record_is_not_used_and_is_told(bundle: Bundle) -> None:
    build_in(bundle)
    (record,) = (bundle.path / "engines").glob(f"*/{BUILD_FILE}")
    record.write_text(record.read_text().replace("RTX 3090", "RTX 3080"))

    assert find_build(bundle, spec_of(bundle)) is None
    builds, broken = list_builds(bundle)
    assert not builds
    assert "was changed" in str(broken[0])


def resealed(record: Path, change: object) -> None:
    payload = json.loads(record.read_text())
    del payload[SEAL]
    change(payload)  # type: ignore[operator]
    record.write_text(dump_sealed(payload))


@pytest.mark.parametrize("name", ["../first.onnx", "/etc/passwd", "a/b.engine", "", ".hidden"])
def test_a_file_name_may_not_leave_the_folder(bundle: Bundle, name: str) -> None:
    build_in(bundle)
    (record,) = (bundle.path / "engines").glob(f"*/{BUILD_FILE}")
    resealed(record, lambda payload: payload["stages"]["head"]["engine"].update(file=name))

    with support.refuses(BundleError, "stages.head.engine.file"):
        read_build(record.parent)


def test_a_folder_must_be_named_after_what_it_holds(bundle: Bundle) -> None:
    build_in(bundle)
    (record,) = (bundle.path / "engines").glob(f"*/{BUILD_FILE}")
    moved = record.parent.rename(record.parent.with_name("0" * 16))

    with support.refuses(BundleError, str(moved), spec_of(bundle).folder_name):
        read_build(moved)


def test_a_tensorrt_build_must_have_every_engine(bundle: Bundle) -> None:
    build_in(bundle)
    (record,) = (bundle.path / "engines").glob(f"*/{BUILD_FILE}")
    resealed(record, lambda payload: payload["stages"]["head"].update(engine=None))

    with support.refuses(BundleError, "stages without an engine: head"):
        read_build(record.parent)


def test_the_nearest_build_differs_in_the_fewest_fields(bundle: Bundle) -> None:
    build_in(bundle, backend="tensorrt-rtx", library_version="1.7")
    build_in(bundle, library_version="10.3.0")

    nearest = nearest_build(bundle, spec_of(bundle))

    assert nearest is not None
    assert nearest.spec.library_version == "10.3.0"
    message = describe_differences(nearest.spec, spec_of(bundle))
    assert nearest.spec.folder_name in message
    assert spec_of(bundle).folder_name in message
    assert "library_version: built 10.3.0, wanted 10.4.0" in message


def test_converted_files_are_found_for_another_device(bundle: Bundle, tmp_path: Path) -> None:
    half = tmp_path / "half.onnx"
    half.write_bytes(b"half")
    precision = own_precision(bundle.manifest) | {"head": Precision.FP16}
    spec = spec_of(bundle, precision=precision)
    make_build(bundle, spec, Making(Converted({"head": half})), lambda name, _: name.encode())

    def for_tensorrt(built: BuildSpec) -> bool:
        return built.backend == "tensorrt"

    found = find_converted(bundle, precision, for_tensorrt)

    assert found is not None
    path = found.onnx_path("head")
    assert path is not None
    assert path.read_bytes() == b"half"
    assert found.onnx_path("first") is None
    assert found.build.onnx_sha256()["head"] != bundle.manifest.stages["head"].sha256
    assert find_converted(bundle, precision, lambda built: not for_tensorrt(built)) is None
    assert find_converted(bundle, own_precision(bundle.manifest), for_tensorrt) is None


positive = st.integers(1, 10_000)


@given(st.lists(positive, min_size=3, max_size=3).map(sorted))
def test_a_batch_range_is_read_back_as_it_was_written(numbers: list[int]) -> None:
    profile = BatchProfile.parse(":".join(map(str, numbers)))

    assert [profile.minimum, profile.optimum, profile.maximum] == numbers
    assert BatchProfile.parse(str(profile)) == profile


@given(st.lists(st.integers(1, 200), min_size=3, max_size=3).map(sorted))
def test_every_batch_of_a_range_is_in_one_part_and_the_ends_are_optima(sizes: list[int]) -> None:
    parts = BatchProfile.parse(":".join(map(str, sizes))).parts()

    taken = [size for part in parts for size in range(part.minimum, part.maximum + 1)]
    assert taken == list(range(sizes[0], sizes[2] + 1))
    assert [part.optimum for part in parts] == [part.maximum for part in parts]
    assert {part.optimum for part in parts} == set(sizes)


def test_a_single_number_is_a_fixed_batch() -> None:
    assert BatchProfile.parse("4") == BatchProfile(minimum=4, optimum=4, maximum=4)


@pytest.mark.parametrize("text", ["", "0", "1:2", "4:2:8", "1:4:2", "a:b:c", "1:4:16:32", "-1"])
def test_what_is_no_batch_range_is_refused(text: str) -> None:
    with support.refuses(InputError, repr(text), "1:4:16"):
        BatchProfile.parse(text)


specs = st.builds(
    BuildSpec,
    backend=st.sampled_from(["onnxruntime", "tensorrt", "tensorrt-rtx"]),
    library_version=st.none() | st.sampled_from(["8.6.1", "10.4.0"]),
    target=st.none() | st.sampled_from([RTX3090, AMPERE_ADA]),
    batch=st.none() | st.just(BATCH),
    precision=st.dictionaries(st.sampled_from("abc"), st.sampled_from(Precision)),
    stages_sha256=st.dictionaries(st.sampled_from("abc"), st.sampled_from(["0" * 64, "f" * 64])),
)


@given(specs, specs)
def test_fingerprints_are_equal_exactly_for_equal_specifications(
    one: BuildSpec, other: BuildSpec
) -> None:
    assert (one.fingerprint == other.fingerprint) == (one == other)
    assert not differences(one, one)


@given(specs)
def test_a_specification_survives_json_and_the_order_of_its_stages(spec: BuildSpec) -> None:
    again = BuildSpec.model_validate_json(spec.model_dump_json())
    turned = spec.model_copy(update={"precision": dict(reversed(list(spec.precision.items())))})

    assert again.fingerprint == spec.fingerprint == turned.fingerprint


STAGES = ("first", "router", "head", "second")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Manifest:
    path = tmp_path_factory.mktemp("plan") / "two.dyn"
    return Bundle.open(support.write_two_exits(path)).manifest


def test_one_precision_is_for_all_stages_but_the_router(manifest) -> None:
    plan = parse_precision("fp16", manifest)
    assert plan.pop("router") is Precision.FP32
    assert set(plan.values()) == {Precision.FP16}
    assert manifest.deciders == ("router",)


def test_a_router_is_converted_where_it_is_named(manifest) -> None:
    assert parse_precision("int8,router=fp16", manifest)["router"] is Precision.FP16


def test_stages_that_nothing_is_said_of_stay_in_float32(manifest) -> None:
    plan = parse_precision(" first = INT8 , second=fp16", manifest)
    assert list(plan.values()) == [
        Precision.INT8,
        Precision.FP32,
        Precision.FP32,
        Precision.FP16,
    ]


@given(plan=st.fixed_dictionaries({stage: st.sampled_from(Precision) for stage in STAGES}))
def test_a_plan_that_is_written_out_reads_back(manifest, plan) -> None:
    assert parse_precision(describe_plan(plan, manifest), manifest) == plan


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["a missing value", "fp32, bf16, fp16, int8"]),
        ("fp8", ["'fp8'", "fp32, bf16, fp16, int8"]),
        ("first=", ["a missing value"]),
        ("frist=fp16", ["'frist'", "did you mean 'first'?"]),
        ("=fp16", ["no stage ''"]),
        ("tail=int8", ["'tail'", "first, router, head, second"]),
        ("head=fp16,head=int8", ["'head'", "twice"]),
        ("fp16,int8", ["two precisions"]),
    ],
)
def test_mistakes_are_named(manifest, text, parts) -> None:
    with support.refuses(InputError, *parts):
        parse_precision(text, manifest)
