"""A user's topology: a closed table of names, nothing evaluated, every refusal names its row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dyninfer import ConfigError, DyninferError
from dyninfer.exporters.dynamicdet.config import read_topology
from dyninfer.exporters.dynamicdet.export import DynamicDetOptions, export_dynamicdet
from dyninfer.exporters.dynamicdet.plan import Plan, plan_from_shapes
from dyninfer.exporters.dynamicdet.topology import IMAGE, Op, Part, Ref, Row, published
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


def test_depth_multiple_scales_repetitions_only(edited) -> None:
    first = read_topology(edited(("depth_multiple: 1.0", "depth_multiple: 2.0")))
    assert [row.repeat for row in first.parts[Part.FIRST]] == [1, 4, 1, 1, 1, 1, 1]


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
        ("RepConv, [16, 3, 1]", "RepConv, [16, 5, 1]", ("RepConv", "5")),
        ("[None, 2, nearest]", "[None, 3, nearest]", ("head row 1",)),
        ("CBFuse, [[0]]", "CBFuse, [[0, 1]]", ("dual_backbone row 3", "CBFuse")),
        ("CBFuse, [[0]]", "CBFuse, [[-1]]", ("dual_backbone row 3",)),
        ("CBFuse, [[0]]", "CBFuse, [[3]]", ()),
        ("router_ins: [1, 5, 6]", "router_ins: [1, 50]", ("router_ins", "50")),
        ("router_ins: [1, 5, 6]", "router_ins: yes", ("router_ins",)),
        ("router_ins: [1, 5, 6]", "router_ins: [a]", ("router_ins",)),
        ("depth_multiple: 1.0", "depth_multiple: fast", ("depth_multiple", "fast")),
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
            if expected.op is Op.CONV:
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
