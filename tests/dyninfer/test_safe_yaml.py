"""YAML of a few lines that would take minutes, or all memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from dyninfer import ConfigError
from dyninfer.exporters.class_names import LARGEST_NAMES, class_names_for, read_names
from dyninfer.exporters.dynamicdet.config import read_topology
from dyninfer.safe_yaml import LARGEST_YAML, load_yaml
from tests import support

LAUGHS = "a: &a [lol]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n"
    for before, name in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (LAUGHS + "names: *j", "alias 'a'"),
        ("base: &b {x: 1}\nnames:\n  <<: *b", "alias 'b'"),
        ("names: &n [*n]", "alias 'n'"),
        ("{" + ", ".join(f"{n * (2**61 - 1)}: a" for n in range(9, 999)) + "}", "64 bits"),
        ("names: 1" + ":1" * 100_000, "64 bits"),
        ("names: 0x" + "f" * 100_000, "64 bits"),
        ("[" * 100_000, "deeply"),
        ("- " * 3000, "deeply"),
        ('names: "\\ud800"', "surrogates"),
        ("names: !!timestamp soon", "NoneType"),
        ("names: !!int ''", "index"),
        ("names: !!int abc", "literal"),
        ("names: 1" + ":1" * 300 + ".5", "float"),
        ("names: 2001-99-99", "month"),
        ("? [a]\n: b", "mapping"),
        ("names: !!python/name:os.system", "python"),
        (" " * (LARGEST_YAML + 1), "at most"),
    ],
)
def test_what_is_refused_is_refused_at_once_and_in_one_line(tmp_path, text, part) -> None:
    with pytest.raises(ValueError, match=part) as caught:
        load_yaml(text)
    assert "\n" not in str(caught.value)
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    with support.refuses(ConfigError, "own.yaml", part):
        read_topology(path)
    with support.refuses(ConfigError, "own.yaml"):  # to which numbers are words like others
        read_names(path)


def test_values_are_words_where_words_are_wanted() -> None:
    text = "a: [NO, on, 012, 1e3, ~, 1:30, 2001-01-01, 0x10, .5, <<, !!int 7]"
    words = ["NO", "on", "012", "1e3", "~", "1:30", "2001-01-01", "0x10", ".5", "<<", 7]
    assert load_yaml(text, words=True) == {"a": words}
    assert load_yaml('["\\ud83d\\ude00"]', words=True) == ["\U0001f600"]  # as JSON writes it


def test_plain_data_is_read_as_pyyaml_reads_it() -> None:
    text = yaml.safe_dump(
        {"names": {0: "caf\xe9", 1: "b"}, "n": [-1, 0x10, 1.5, None, True, "1:30"]}
    )
    assert load_yaml(text) == yaml.safe_load(text)


def test_class_names_are_read_from_files_of_a_sensible_size(tmp_path) -> None:
    path = tmp_path / "names.txt"
    with path.open("wb") as file:
        file.truncate(LARGEST_NAMES + 1)
    with support.refuses(ConfigError, "names.txt", "at most"):
        read_names(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
@pytest.mark.parametrize("read", [read_names, read_topology])
def test_a_pipe_is_refused_at_once(tmp_path, read) -> None:
    os.mkfifo(tmp_path / "own.yaml")
    with support.refuses(ConfigError, "own.yaml", "pipe"):
        read(tmp_path / "own.yaml")


def test_names_that_are_listed_in_the_option_are_answered_with_what_is_expected(tmp_path) -> None:
    with support.refuses(ConfigError, "cat,dog does not exist", "one name on each line"):
        read_names(Path("cat,dog"))
    names = tmp_path / "names.txt"
    names.write_text("cat, dog\n")
    with support.refuses(ConfigError, "holds 1 class name", "2 classes", "one name on each line"):
        class_names_for(2, names)
    names.write_text("traffic light, red\ndog\n")
    assert class_names_for(2, names) == ("traffic light, red", "dog")
