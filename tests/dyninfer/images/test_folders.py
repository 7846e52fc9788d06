from __future__ import annotations

import os
from pathlib import Path

import pytest

from dyninfer import InputError
from dyninfer.images.folders import SUFFIXES, find_images, match_images, search_folder
from tests import support


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def names_of(paths: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def test_pictures_are_found_by_their_suffix_sorted_and_hidden_ones_left_out(tmp_path) -> None:
    assert find_images(tmp_path) == []
    make(tmp_path, "b.JPG", "a.png", "deep/c.webp", "d.jfif", "e.GIF", ".hidden.png", "notes.txt")
    make(tmp_path, ".cache/thumb.png", "deep/.git/x.png")
    (tmp_path / "folder.png").mkdir()
    expected = ["a.png", "b.JPG", "d.jfif", "deep/c.webp", "e.GIF"]
    assert names_of(find_images(tmp_path), tmp_path) == expected


def test_a_hidden_folder_that_is_named_is_searched(tmp_path) -> None:
    make(tmp_path, ".photos/a.png")
    assert len(find_images(tmp_path / ".photos")) == 1
    assert len(match_images(str(tmp_path / ".photos" / "*.png"))) == 1


def test_linked_folders_are_followed_once_and_folders_themselves_come_first(tmp_path) -> None:
    elsewhere = make(tmp_path / "elsewhere", "x/1.png", "2.png")
    photos = make(tmp_path / "photos", "z/a.png")
    (photos / "link").symlink_to(elsewhere)
    (photos / "again").symlink_to(elsewhere)
    (photos / "a-link").symlink_to(photos / "z")  # sorted before it
    (photos / "z" / "up").symlink_to(photos)
    (photos / "self").symlink_to("self")
    (photos / "nowhere").symlink_to("nothing")
    assert names_of(find_images(photos), photos) == ["again/2.png", "again/x/1.png", "z/a.png"]
    found = match_images(str(photos / "**" / "*.png"))
    assert len(found) == len({path.resolve() for path in found}) == 3


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch) -> None:
    make(tmp_path, "open/a.png", "shut/b.png")
    scandir = os.scandir

    def refusing(path):
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with support.refuses(InputError, str(tmp_path / "shut"), "cannot be read: Permission denied"):
        find_images(tmp_path)


def test_pictures_of_other_formats_are_counted(tmp_path) -> None:
    make(tmp_path, "a.png", "b.HEIC", "c.heic", "d.avif", "e.txt")
    found, others = search_folder(tmp_path)
    assert names_of(found, tmp_path) == ["a.png"]
    assert dict(others) == {".heic": 2, ".avif": 1}
    assert not SUFFIXES & others.keys()


@pytest.mark.parametrize("folder", ["photos [1]", "what?", "a*b"])
def test_what_is_there_as_it_is_written_wins_over_patterns(tmp_path, folder) -> None:
    make(tmp_path, f"{folder}/a1.png", f"{folder}/a2.png", f"{folder}/a[1].png", "photos 1/b1.png")
    here = tmp_path / folder
    assert names_of(match_images(f"{here}/*.png"), here) == ["a1.png", "a2.png", "a[1].png"]
    assert names_of(match_images(f"{here}/a[12].png"), here) == ["a1.png", "a2.png"]
    assert names_of(match_images(f"{here}/a?1].png"), here) == ["a[1].png"]
    assert names_of(match_images(f"{here}/*[1].png"), here) == ["a[1].png"]


def test_annotated_copies_of_results_are_no_pictures(tmp_path) -> None:
    make(tmp_path, "a.png", "out/predictions.jsonl", "out/annotated/a.jpg", "annotated/b.png")
    assert names_of(find_images(tmp_path), tmp_path) == ["a.png", "annotated/b.png"]
    assert len(match_images(f"{tmp_path}/**/*.jpg")) == 0
    assert len(find_images(tmp_path / "out" / "annotated")) == 1  # who names it means it
    assert len(match_images(f"{tmp_path}/out/annotated/*.jpg")) == 1


def test_what_an_export_drew_into_a_bundle_is_no_picture(tmp_path) -> None:
    make(tmp_path, "a.png", "x.dyn/bundle.json", "x.dyn/pictures/first.jpg", "pictures/b.png")
    assert names_of(find_images(tmp_path), tmp_path) == ["a.png", "pictures/b.png"]
    assert [p.name for p in match_images(f"{tmp_path}/**/*.jpg")] == []
    assert len(find_images(tmp_path / "x.dyn" / "pictures")) == 1  # who names it means it
