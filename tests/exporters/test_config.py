"""A user's topology: a closed table of names, nothing evaluated, every refusal names its row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dyninfer import CheckpointError, ConfigError, DyninferError
from dyninfer.exporters.dynamicdet.config import read_topology
from dyninfer.exporters.dynamicdet.export import DynamicDetOptions, export_dynamicdet
from dyninfer.exporters.dynamicdet.plan import Plan, plan_from_shapes, plan_from_table
from dyninfer.exporters.dynamicdet.topology import IMAGE, Op, Part, Ref, Row, Topology, published
from tests import support


@pytest.fixture
def edited(tmp_path: Path):
    def write(*changes: tuple[str, str]) -> Path:
        text = support.SMALL_YAML
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / "own.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_rows_references_and_router_inputs_are_read(small_yaml) -> None:
    topology = read_topology(small_yaml)
    assert [len(topology.parts[part]) for part in Part] == [7, 7, 6, 3]
    first, second = topology.parts[Part.FIRST], topology.parts[Part.SECOND]
    assert (first[0].inputs, first[0].kernel, first[0].stride) == ((IMAGE,), 3, 2)
    assert first[1].repeat == 2
    assert first[5].inputs == (Ref(Part.FIRST, 4), Ref(Part.FIRST, 3))
    assert second[0].inputs == (IMAGE,)
    assert second[2].inputs == (Ref(Part.FIRST, 5),)
    assert (second[5].op, second[5].split_index) == (Op.CB_FUSE, (1,))
    assert topology.parts[Part.HEAD][0].inputs == (Ref(Part.FIRST, 6),)
    assert topology.parts[Part.HEAD2][1].inputs == (Ref(Part.SECOND, 6),)
    assert topology.router_inputs == tuple(Ref(Part.FIRST, i) for i in (1, 5, 6))
    assert topology.read_by(Part.SECOND) == (IMAGE, Ref(Part.FIRST, 5))


@pytest.mark.parametrize(
    ("depth", "repeats"), [(2.0, 4), (0.8, 2), (0.7, 1), (0.1, 1), (99.5, 199)]
)
def test_depth_multiple_scales_repetitions_only(edited, depth, repeats) -> None:
    first = read_topology(edited(("depth_multiple: 1.0", f"depth_multiple: {depth}")))
    assert [row.repeat for row in first.parts[Part.FIRST]] == [1, repeats, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("args", "kernel", "stride"), [("[16]", 1, 1), ("[16, 3]", 3, 1), ("[16, 5, 2]", 5, 2)]
)
def test_kernel_and_stride_are_one_where_a_row_is_short(edited, args, kernel, stride) -> None:
    first = read_topology(edited(("[16, 1, 1]", args))).parts[Part.FIRST]
    assert (first[4].kernel, first[4].stride) == (kernel, stride)
    assert (first[2].kernel, first[2].stride) == (1, 1)


def test_b1_save_stands_in_for_missing_router_ins(edited) -> None:
    topology = read_topology(edited(("router_ins: [1, 5, 6]\n", "")))
    assert topology.router_inputs == (Ref(Part.FIRST, 5), Ref(Part.FIRST, 6))


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("[-1, 1, MP, []]", "[-1, 1, Ghost, []]", ("backbone row 2", "Ghost", "Conv")),
        ("[-1, 1, MP, []]", "[-1, 1, __import__('os').system('x'), []]", ("backbone row 2",)),
        ("[-1, 1, MP, []]", "[-1, 1, torch.nn.Conv2d, []]", ("torch.nn.Conv2d", "unknown")),
        ("[-1, 1, MP, []]", "[-1, 1, 7, []]", ("backbone row 2",)),
        ("[-1, 1, MP, []]", "[-1, 1, MP, [3]]", ("backbone row 2", "2x2")),
        ("[-1, 1, MP, []]", "[-1, 1, MP]", ("backbone row 2", "[from, number, module, args]")),
        ("[-1, 1, MP, []]", "[-1, 2, MP, []]", ("repeated",)),
        ("[-1, 1, MP, []]", "[-1, 0, MP, []]", ("backbone row 2",)),
        ("[-1, 1, MP, []]", "[-1, 1, MP, 3]", ("backbone row 2",)),
        ("[-1, 1, MP, []]", "MP", ("backbone row 2",)),
        ("[-1, 1, MP, []]", "[-1, 1, MP, [], 1]", ("backbone row 2", "is not [from, number")),
        ("[-1, 1, MP, []]", "[[], 1, MP, []]", ("backbone row 2", "reads 0")),
        ("[-1, 1, MP, []]", "[[-1, -2], 1, MP, []]", ("backbone row 2", "reads 2")),
        ("[-1, 1, MP, []]", "[-9, 1, MP, []]", ("backbone row 2", "-9")),
        ("[-1, 1, MP, []]", "[2, 1, MP, []]", ("b:2",)),
        ("[-1, 1, MP, []]", "[40, 1, MP, []]", ("b:40",)),
        ("[-1, 1, MP, []]", "[true, 1, MP, []]", ("backbone row 2",)),
        ("[-1, 1, MP, []]", "['len(x)', 1, MP, []]", ("backbone row 2", "len(x)")),
        ("[16, 1, 1]", "[16, 'k+1', 1]", ("backbone row 4", "k+1")),
        ("[16, 1, 1]", "[16, 1, 0]", ("backbone row 4",)),
        ("[16, 1, 1]", "[16, 1, 1000000000000]", ("backbone row 4", "1 to 64")),
        ("head:\n", "head:\n" + "  - [6, 1, Concat, [1]]\n" * 300, ("head has 306 rows",)),
        ("[16, 1, 1]", "[16, 1, 1, 1, 2]", ("backbone row 4",)),
        ("[-1, 1, Conv, [24, 3, 2]]", "[input, 1, Conv, [24]]", ()),
        ("RepConv, [16, 3, 1]", "RepConv, [16, 5, 1]", ("RepConv has kernel 5, only 3",)),
        ("RepConv, [16, 3, 1]", "RepConv, [16, 1, 1]", ("RepConv has kernel 1, only 3",)),
        ("[None, 2, nearest]", "[None, 3, nearest]", ("head row 1",)),
        ("CBFuse, [[0]]", "CBFuse, [[0, 1]]", ("dual_backbone row 3", "CBFuse")),
        ("CBFuse, [[0]]", "CBFuse, [[-1]]", ("dual_backbone row 3",)),
        ("CBFuse, [[0]]", "CBFuse, [[3]]", ()),
        ("router_ins: [1, 5, 6]", "router_ins: [1, 50]", ("router_ins", "50")),
        ("router_ins: [1, 5, 6]", "router_ins: yes", ("router_ins",)),
        ("router_ins: [1, 5, 6]", "router_ins: [a]", ("router_ins",)),
        ("depth_multiple: 1.0", "depth_multiple: fast", ("depth_multiple", "fast")),
        ("depth_multiple: 1.0", "depth_multiple: true", ("depth_multiple is True",)),
        ("depth_multiple: 1.0", "depth_multiple: 0", ("depth_multiple is 0", "0 and 100")),
        ("depth_multiple: 1.0", "depth_multiple: 100", ("depth_multiple is 100",)),
        ("dual_backbone:", "dual:", ("dual_backbone",)),
        ("[[-2, -1], 1, IDetect, [nc, anchors]]\nhead2", "[-1, 1, Conv, [8]]\nhead2", ("Detect",)),
        ("[16, 1, 1]]\n  - [[-1", "[16, 1, 2]]\n  - [[-1", ("cannot run", "images")),
        ("[6, 1, SPPCSPC, [8]]", "[input, 1, SPPCSPC, [8]]", ("image",)),
    ],
)
def test_what_is_not_understood_is_refused(
    edited, small_checkpoint, tmp_path, old, new, parts
) -> None:
    config = edited((old, new))
    options = DynamicDetOptions(image_size=(32, 32), config=config)
    before = support.files_below(tmp_path)
    with support.refuses(DyninferError, *parts):
        export_dynamicdet(small_checkpoint, tmp_path / "x.dyn", options)
    assert support.files_below(tmp_path) == before


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ("NoneType",)),
        ("- a\n- b\n", ("list",)),
        ("backbone: []\n", ("backbone",)),
        ("backbone: 3\n", ("backbone",)),
        ("{ not yaml", ("YAML",)),
        ("a: !!python/object/apply:os.system ['touch proof']\n", ("YAML",)),
        ("a: !!python/name:os.system\n", ("YAML",)),
    ],
)
def test_files_that_are_no_topology_are_refused(tmp_path, monkeypatch, text, parts) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    with support.refuses(ConfigError, "own.yaml", *parts):
        read_topology(path)
    assert [p.name for p in tmp_path.iterdir()] == ["own.yaml"]


def test_a_missing_or_binary_file_is_refused(tmp_path) -> None:
    with support.refuses(ConfigError, "nothing.yaml"):
        read_topology(tmp_path / "nothing.yaml")
    with support.refuses(ConfigError):
        read_topology(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    with support.refuses(ConfigError, "binary.yaml"):
        read_topology(tmp_path / "binary.yaml")


MODULE_OF = {
    Op.CONV: "Conv",
    Op.MAX_POOL: "MP",
    Op.SPACE_TO_DEPTH: "ReOrg",
    Op.CONCAT: "Concat",
    Op.UPSAMPLE: "nn.Upsample",
    Op.SPPCSPC: "SPPCSPC",
    Op.REP_CONV: "RepConv",
    Op.CB_LINEAR: "CBLinear",
    Op.CB_FUSE: "CBFuse",
    Op.DETECT: "IDetect",
}
SECTION_OF = {
    Part.FIRST: "backbone",
    Part.SECOND: "dual_backbone",
    Part.HEAD: "head",
    Part.HEAD2: "head2",
}


def yaml_row(row: Row) -> list:
    """A row as the training's YAML writes it: relative within the part, absolute across parts."""
    sources = [
        -1
        if ref == IMAGE and row.ref.part is Part.FIRST
        else "input"
        if ref == IMAGE
        else ref.index - row.ref.index
        if ref.part is row.ref.part
        else ref.index
        for ref in row.inputs
    ]
    args: dict[Op, list] = {
        Op.CONV: [*row.channels, row.kernel, row.stride],
        Op.REP_CONV: [*row.channels, 3, 1],
        Op.CONCAT: [1],
        Op.UPSAMPLE: [None, 2, "nearest"],
        Op.SPPCSPC: [*row.channels],
        Op.CB_LINEAR: [list(row.channels)],
        Op.CB_FUSE: [list(row.split_index)],
        Op.DETECT: ["nc", "anchors"],
    }
    only = sources[0] if len(sources) == 1 else sources
    return [only, 1, MODULE_OF[row.op], args.get(row.op, [])]


@pytest.mark.parametrize("variant", support.VARIANTS)
def test_the_published_tables_written_as_yaml_are_read_back(tmp_path: Path, variant: str) -> None:
    topology = published(variant)
    config: dict[str, object] = {"nc": 80, "depth_multiple": 1.0, "width_multiple": 1.0}
    config["router_ins"] = [ref.index for ref in topology.router_inputs]
    for part, section in SECTION_OF.items():
        config[section] = [yaml_row(row) for row in topology.parts[part]]
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    read = read_topology(path)
    assert read.router_inputs == topology.router_inputs
    for part in Part:
        for found, expected in zip(read.parts[part], topology.parts[part], strict=True):
            assert replace(found, channels=(), kernel=0) == replace(expected, channels=(), kernel=0)
            if expected.op is not Op.REP_CONV:
                assert found.kernel == expected.kernel


def test_a_chain_of_rows_may_be_longer_than_calls_may_nest(
    tmp_path, small_model, small_yaml
) -> None:
    """Widths and strides are found row by row."""
    text = small_yaml.read_text(encoding="utf-8")
    chain = "  - [6, 1, Concat, [1]]\n" + "  - [-1, 1, Concat, [1]]\n" * 290
    own = tmp_path / "chain.yaml"
    own.write_text(
        text.replace("head:\n", f"head:\n{chain}", 1).replace("[6, 1, SPPCSPC", "[-1, 1, SPPCSPC"),
        encoding="utf-8",
    )

    def moved(name: str) -> str:
        part, index, rest = name.split(".", 2)
        return f"{part}.{int(index) + 291}.{rest}" if part == "model_h" else name

    shapes = {moved(name): tuple(t.shape) for name, t in small_model.state_dict().items()}
    plan = plan_from_shapes(read_topology(own), shapes)
    assert plan.strides == Plan(read_topology(small_yaml)).strides
    assert plan.channels(Ref(Part.HEAD, 290)) == 16


@pytest.mark.parametrize(
    ("depth", "repeat"),
    [("0.2", 1), ("0.75", 2), ("1.25", 2), ("3", 6), ("99.9", 200), ("0", None), ("100", None),
     ("-1", None), ("true", None), ("null", None)],
)  # fmt: skip
def test_a_depth_is_a_number_above_0_and_below_100(edited, depth, repeat) -> None:
    path = edited(("depth_multiple: 1.0", f"depth_multiple: {depth}"))
    if repeat is None:
        with support.refuses(ConfigError, "depth_multiple", "between 0 and 100"):
            read_topology(path)
    else:
        assert [row.repeat for row in read_topology(path).parts[Part.FIRST]][:3] == [1, repeat, 1]


def test_where_no_depth_is_said_it_is_1(edited) -> None:
    path = edited(("depth_multiple: 1.0\n", ""))
    assert [row.repeat for row in read_topology(path).parts[Part.FIRST]][:2] == [1, 2]


FITS = None  # instead of what a refusal says


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[-1, 2, Conv, [8, 3, 1]]", "[-1, 100, Conv, [8, 3, 1]]", FITS),
        ("[-1, 2, Conv, [8, 3, 1]]", "[-1, 101, Conv, [8, 3, 1]]", "[from, number"),
        ("[16, 1, 1]", "[16, 64, 64]", FITS),
        ("[16, 1, 1]", "[16, 65, 1]", "1 to 64"),
        ("[16, 1, 1]", "[16, 1, 65]", "1 to 64"),
        ("[16, 1, 1]", "[16, 0, 1]", "1 to 64"),
        ("[-1, 1, Conv, [16, 1, 1]]", "[-1, 1, Conv, []]", "1 to 64"),
        ("[[-1, -2], 1, Concat, [1]]", "[[-1, -2], 1, Concat, []]", FITS),
        ("[[-1, -2], 1, Concat, [1]]", "[[-1, -2], 1, Concat, [2]]", "only [1]"),
        ("[[-1, -2], 1, Concat, [1]]", "[[-5, -4], 1, Concat, [1]]", FITS),
        ("[[-1, -2], 1, Concat, [1]]", "[[-6, -4], 1, Concat, [1]]", FITS),  # -1 is the image
        ("[[-1, -2], 1, Concat, [1]]", "[[-7, -4], 1, Concat, [1]]", "before the part's first row"),
        ("[-1, 1, Conv, [8, 3, 2]]\n  - [5", "[-2, 1, Conv, [8, 3, 2]]\n  - [5", "first row"),
        ("[6, 1, SPPCSPC, [8]]", "[6, 1, SPPCSPC, []]", FITS),
        ("[6, 1, SPPCSPC, [8]]", "[6, 1, SPPCSPC, [8, 2]]", "only [channels]"),
        ("[-1, 1, MP, []]", "[-1, 1, MP, [2]]", FITS),
        ("[-1, 1, MP, []]", "[0, 1, MP, []]", FITS),
        ("[None, 2, nearest]", "[None, 2, linear]", "nn.Upsample has"),
        ("router_ins: [1, 5, 6]", "router_ins: [0, 6]", FITS),
        ("router_ins: [1, 5, 6]", "router_ins: [1, 7]", "names rows [7], the backbone has 7"),
        ("router_ins: [1, 5, 6]", "router_ins: [-1]", "names rows [-1]"),
        ("CBFuse, [[0]]", "CBFuse, [[a]]", "CBFuse has 2 inputs"),
        ("CBFuse, [[0]]", "CBFuse, []", "CBFuse has 2 inputs"),
        ("CBFuse, [[0]]", "CBFuse, [0]", "CBFuse has 2 inputs"),
    ],
)  # fmt: skip
def test_rows_at_their_limits(edited, old, new, told) -> None:
    path = edited((old, new))
    if told is FITS:
        read_topology(path)
    else:
        with support.refuses(ConfigError, told):
            read_topology(path)


@pytest.mark.parametrize(("more", "fits"), [(294, True), (295, False)])
def test_a_part_has_300_rows_at_most(edited, more, fits) -> None:
    path = edited(("head:\n", "head:\n" + "  - [6, 1, Concat, [1]]\n" * more))
    if fits:
        assert len(read_topology(path).parts[Part.HEAD]) == 300
    else:
        with support.refuses(ConfigError, "head has 301 rows, expected 300 at most"):
            read_topology(path)


def test_a_problem_with_a_row_is_told_in_200_characters(edited) -> None:
    with pytest.raises(ConfigError) as told:
        read_topology(edited(("[-1, 1, MP, []]", f"[-1, 1, MP, [{'x' * 300}]]")))
    where, _, problem = str(told.value).partition("row 2: ")
    assert where.endswith("backbone ")
    assert len(problem) == 200


def row(part: Part, index: int, op: Op, *inputs: Ref, **more) -> Row:
    return Row(Ref(part, index), op, inputs, **more)


def topology_of(*first: Row, head: tuple[Row, ...] = (), router: tuple[Ref, ...] = ()) -> Topology:
    """Two heads of one row, and whatever comes before."""
    top = first[-1].ref if first else IMAGE
    ends = {part: (row(part, 0, Op.DETECT, top),) for part in (Part.HEAD, Part.HEAD2)}
    second = (row(Part.SECOND, 0, Op.CONV, IMAGE),)
    ends[Part.HEAD2] = (row(Part.HEAD2, 0, Op.DETECT, Ref(Part.SECOND, 0)),)
    parts = {Part.FIRST: first, Part.SECOND: second, **ends}
    return Topology("own", parts | ({Part.HEAD: head} if head else {}), router)


CONV = row(Part.FIRST, 0, Op.CONV, IMAGE, kernel=3, stride=2)
LINEAR = row(Part.FIRST, 1, Op.CB_LINEAR, CONV.ref)


def test_rows_read_what_is_before_them_alone() -> None:
    topology_of(CONV)
    beside = row(Part.FIRST, 1, Op.CONV, Ref(Part.FIRST, 1))
    with support.refuses(ConfigError, "row b:1 of own reads b:1, which is not before it"):
        topology_of(CONV, beside)
    for index in (-1, 1):
        with support.refuses(ConfigError, f"reads b:{index}, which is not before it"):
            topology_of(CONV, head=(row(Part.HEAD, 0, Op.DETECT, Ref(Part.FIRST, index)),))
    with support.refuses(ConfigError, "reads b2:0, which is not before it"):
        topology_of(CONV, head=(row(Part.HEAD, 0, Op.DETECT, Ref(Part.SECOND, 0)),))
    with support.refuses(ConfigError, "a head reads features only"):
        topology_of(CONV, head=(row(Part.HEAD, 0, Op.DETECT, IMAGE),))
    with support.refuses(ConfigError, "does not end in Detect"):
        topology_of(CONV, head=(row(Part.HEAD, 0, Op.CONV, CONV.ref),))
    with support.refuses(ConfigError, "the router of own reads b:1, a CBLinear"):
        topology_of(CONV, LINEAR, CONV_2, router=(LINEAR.ref,))


CONV_2 = row(Part.FIRST, 2, Op.CONV, CONV.ref)


def test_only_a_fuse_reads_splits_and_only_its_last_input_is_none() -> None:
    fuse = row(Part.FIRST, 2, Op.CB_FUSE, LINEAR.ref, CONV.ref, split_index=(0,))
    topology_of(CONV, LINEAR, fuse)
    for wrong in (
        row(Part.FIRST, 2, Op.CONV, LINEAR.ref),
        replace(fuse, inputs=(CONV.ref, LINEAR.ref)),
        replace(fuse, inputs=(CONV.ref, CONV.ref)),
        replace(fuse, inputs=(IMAGE, CONV.ref)),
    ):
        with support.refuses(ConfigError, "only CBFuse reads CBLinear, of its own part"):
            topology_of(CONV, LINEAR, wrong)
    elsewhere = replace(fuse, ref=Ref(Part.HEAD, 0))
    with support.refuses(ConfigError, "only CBFuse reads CBLinear, of its own part"):
        topology_of(CONV, LINEAR, head=(elsewhere, row(Part.HEAD, 1, Op.DETECT, elsewhere.ref)))


@pytest.mark.parametrize(
    ("numbers", "classes"), [(15, 1), (18, 1), (21, 2), (24, 3), (255, 80), (12, 1)]
)
def test_classes_are_what_a_prediction_has_beside_box_and_confidence(numbers, classes) -> None:
    shapes = {"model_b.0.conv.weight": (10, 3, 3, 3), "model_b2.0.conv.weight": (8, 3, 1, 1)}
    for head in ("model_h.0", "model_h2.0"):
        shapes |= {f"{head}.m.0.weight": (numbers, 8, 1, 1), f"{head}.anchors": (1, 3, 2)}
    topology = topology_of(CONV, router=(CONV.ref,))
    plan = plan_from_shapes(topology, shapes)
    assert (plan.classes, plan.anchors_per_level, plan.router_hidden) == (classes, 3, None)
    assert (plan.strides, plan.largest_stride, plan.router_channels) == ((2,), 2, 10)
    routed = plan_from_shapes(topology, shapes | {"router.layer2.weight": (1, 5, 1, 1)})
    assert routed.router_hidden == 2  # a quarter of the channels, where nothing else says it
    assert isinstance(routed.router_hidden, int)
    routed = plan_from_shapes(topology, shapes | {"router.layer1.weight": (5, 8, 1, 1)})
    assert routed.router_hidden == 5
    for name, shape, axes in (
        ("model_h.0.anchors", (1, 3), 3),
        ("model_h.0.anchors", (1, 3, 2, 1), 3),
        ("model_b.0.conv.weight", (8, 3, 3), 4),
        ("model_b.0.conv.weight", (8, 3, 3, 3, 1), 4),
        ("model_b.0.conv.weight", (8, 0, 3, 3), 4),
        ("router.layer1.weight", (5, 8, 1), 4),
    ):
        with support.refuses(CheckpointError, f"{name} is {shape}, expected {axes} axes"):
            plan_from_shapes(topology, shapes | {name: shape})
    with support.refuses(CheckpointError, "lacks 1 of the parameters of own: model_h.0.anchors"):
        plan_from_shapes(topology, {k: v for k, v in shapes.items() if k != "model_h.0.anchors"})
    with support.refuses(CheckpointError, "lacks 6 of", "model_h2.0.m.0.weight and 1 more"):
        plan_from_shapes(topology, {})
    with support.refuses(CheckpointError, "expected 4 axes and 1 more, none of length 0"):
        plan_from_shapes(topology, dict.fromkeys(shapes, (8,)))


def test_strides_and_widths_of_each_kind_of_row() -> None:
    rows = (
        CONV,
        row(Part.FIRST, 1, Op.SPACE_TO_DEPTH, CONV.ref),
        row(Part.FIRST, 2, Op.MAX_POOL, Ref(Part.FIRST, 1)),
        row(Part.FIRST, 3, Op.UPSAMPLE, Ref(Part.FIRST, 2)),
        row(Part.FIRST, 4, Op.CONCAT, Ref(Part.FIRST, 1), Ref(Part.FIRST, 3)),
        row(Part.FIRST, 5, Op.CONV, Ref(Part.FIRST, 4), stride=2, repeat=3),
    )
    plan = Plan(topology_of(*rows), out={rows[0].ref: 6, rows[5].ref: 10})
    assert [plan.stride(each.ref) for each in rows] == [2, 4, 8, 4, 4, 32]
    assert [plan.channels(each.ref) for each in rows] == [6, 24, 24, 24, 48, 10]
    assert (plan.stride(IMAGE), plan.channels(IMAGE), plan.largest_stride) == (1, 3, 32)


@pytest.mark.parametrize(("width", "hidden"), [(0, 1), (1, 1), (3, 3), (4, 5)])
def test_a_router_has_a_quarter_of_its_channels_and_at_least_one(width, hidden) -> None:
    """It reads five rows, of as many channels each here."""
    plan = plan_from_table(published("dy-yolov7"), lambda _part, _channels: width)
    assert (plan.router_channels, plan.router_hidden) == (5 * width, hidden)
