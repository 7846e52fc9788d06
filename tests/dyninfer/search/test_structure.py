from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from dyninfer.errors import ConfigError
from dyninfer.search.space import START
from dyninfer.search.structure import parse_structure, read_structure
from tests.dyninfer.search.structures import LARGE, NARROW, SMALL
from tests.support import ROOT

STEM = "{'class': 'ConvKXBNRELU', 'in': 3, 'out': 32, 's': 2, 'k': 3}"


def stage(**changed: object) -> str:
    fields = {"class": "SuperResK1KXK1", "in": 32, "out": 48, "s": 2, "k": 5, "L": 2, "btn": 32}
    return repr({**fields, **changed})


def text_of(*blocks: str) -> str:
    return f"{{'best_structures': [[{', '.join(blocks)}]], 'space_arch': 'CnnNet'}}"


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as error:
        parse_structure(text)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_text_of_the_vectors() -> None:
    assert read_structure(ROOT / "tests/vectors/zendet-narrow.txt") == NARROW


@pytest.mark.parametrize("structure", [SMALL, LARGE, START], ids=["small", "large", "start"])
def test_a_text_is_read_as_it_was_written(structure) -> None:
    assert parse_structure(structure.text) == structure


def test_older_spellings_and_json_mean_the_same() -> None:
    older = SMALL.text.replace("SuperResK1KXK1", "SuperResConvK1KXK1")
    assert parse_structure(older.replace("CnnNet", "MasterNet")) == SMALL
    assert parse_structure(SMALL.text.replace("'", '"')) == SMALL
    assert parse_structure("\n  " + SMALL.text) == SMALL


def test_a_block_of_stride_1_in_the_middle_begins_no_stage() -> None:
    assert START.channels == (32, 256, 512, 1024, 2048)
    assert START.stage_ends == (0, 1, 2, 4, 5)
    assert START.strides == (2, 4, 8, 16, 16, 32)
    last = SMALL.text.replace("]]", f", {stage(s=1, **{'in': 2048, 'out': 2048})}]]")
    assert parse_structure(last).stage_ends == (0, 1, 2, 3, 5)


def test_optional_fields() -> None:
    plain = parse_structure(text_of(*_blocks()))
    stated = text_of(*_blocks(p=2, g=1, act="relu", nbitsA=8, nbitsW=8))
    assert parse_structure(stated) == plain
    grouped = parse_structure(text_of(*_blocks(g=8)))
    assert grouped.blocks[1].groups == 8
    assert parse_structure(grouped.text) == grouped


def _blocks(**changed: object) -> list[str]:
    """A stem and four stages, the first of which is changed."""
    further = [stage(**{"in": 48, "out": 48})] * 3
    return [STEM, stage(**changed), *further]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no literal of Python or JSON"),
        ("__import__('os').system('true')", "no literal"),
        ("{'best_structures': [[f(3)]]}", "no literal"),
        ("'\\d'", "no literal"),
        ("[" * 5000 + "]" * 5000, "nested too deeply"),
        ("-" * 200_000 + "1", "no literal"),
        ("[]", "no 'best_structures'"),
        ("{'best_structures': []}", "no list of blocks first"),
        ("{'best_structures': [[3]]}", "block 0 is 3, expected a dict with a 'class'"),
        (text_of(*_blocks()).replace("CnnNet", "ViT"), "space_arch is 'ViT', expected CnnNet"),
        (
            text_of(*_blocks(**{"class": "SuperResK1DWK1"})),
            "block 1 is of the class 'SuperResK1DWK1', expected ConvKXBNRELU or SuperResK1KXK1",
        ),
        (text_of(*_blocks(**{"class": ["a"]})), "block 1 is of the class ['a']"),
        (text_of(STEM), "1 block of 1 have stride 2, expected 5"),
        (text_of(*_blocks()[1:]), "block 0 is SuperResK1KXK1, expected ConvKXBNRELU first"),
        (text_of(*_blocks(**{"in": 40})), "block 1 takes 40 channels, but block 0 gives 32"),
        (text_of(STEM.replace("3,", "4,", 1)), "block 0 takes 4 channels, but a picture has 3"),
        (text_of(*_blocks(s=1)), "4 blocks of 5 have stride 2, expected 5"),
        (text_of(*_blocks(k=4)), "k is 4 and p 1, expected an odd kernel"),
        (text_of(*_blocks(p=0)), "k is 5 and p 0"),
        (text_of(*_blocks(s=3)), "s is 3, expected a whole number from 1 to 2"),
        (text_of(*_blocks(L=True)), "L is True, expected a whole number"),
        (text_of(*_blocks(btn=1.5)), "btn is 1.5"),
        (text_of(*_blocks()).replace("48", "9" * 5000), "no literal"),
        (text_of(*_blocks(g=3)), "cannot be parted into g = 3 groups"),
        (text_of(*_blocks(act="silu")), "act is 'silu', expected 'relu'"),
        (text_of(*_blocks(stem=1)), "block 1 (SuperResK1KXK1) has stem"),
        (text_of(STEM.replace("'k': 3", "'L': 3")), "block 0 (ConvKXBNRELU) lacks k"),
    ],
    ids=range(27),
)
def test_what_is_no_structure_is_refused_in_one_line(text: str, expected: str) -> None:
    assert expected in refusal(text)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "found.txt"
    with pytest.raises(ConfigError, match=re.escape(f"the structure text {path} does not exist")):
        read_structure(path)
    for content in (b"\xff\xfe\x00", b" " * (1 << 19), json.dumps([1]).encode()):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=re.escape(str(path))):
            read_structure(path)
