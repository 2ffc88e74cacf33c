"""Paths of lists are repaired where only one file can be meant, and never guessed."""

import os
from pathlib import Path

import pytest

from qwen2_audio.datasets.paths import SEVERAL, TAKEN, SoundFinder, sound_files


def tree(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


@pytest.mark.parametrize(
    ("listed", "lies", "repair"),
    [
        ("a/b.wav", "a/b.wav", None),
        ("./a/b.wav", "a/b.wav", None),
        ("b.mp3", "clips/b.mp3", None),
        ("/test/b.wav", "b.wav", "without their first folders"),
        ("librispeech/dev-clean/1/b.flac", "dev-clean/1/b.flac", "without their first folders"),
        ("x/out_test_wav/b.wav", "out_test/b.mp4", "with another ending"),
        ("b.wav", "deep/er/b.wav", "by their name alone"),
        ("IOS/B.WAV", "iOS/b.wav", "by their name alone"),
        ("a/b", "c/b.mp3", "with another ending"),
        ("a/SNG1312_85.3_109.69.wav", "c/SNG1312_85.3_109.69.flac", "with another ending"),
        ("windows\\a\\b.wav", "a/b.wav", "without their first folders"),
    ],
)
def test_a_path_is_found(tmp_path, listed, lies, repair):
    root = tree(tmp_path / "data", lies)
    finder = SoundFinder(root)
    assert Path(finder.find(listed)) == root / lies
    assert dict(finder.repairs) == ({repair: 1} if repair else {})


def test_of_several_files_the_one_in_the_same_folders_is_meant(tmp_path):
    root = tree(tmp_path / "data", "x/dev_wav/b.flac", "x/other/b.flac", "y/b.flac")
    assert SoundFinder(root).find("gone/dev/b.wav").endswith("x/dev_wav/b.flac")


def test_files_that_fit_equally_well_are_none(tmp_path):
    root = tree(tmp_path / "data", "x/b.wav", "y/b.wav")
    finder = SoundFinder(root)
    assert finder.find("z/b.wav") == str(root / "z/b.wav")
    assert dict(finder.repairs) == {SEVERAL: 1}


def test_two_rows_do_not_share_a_repaired_clip(tmp_path):
    """A flat folder holds dia0_utt0 of one split; the list names it for two."""
    root = tree(tmp_path / "data", "flat/b.wav")
    finder = SoundFinder(root)
    assert [finder.find(name) for name in ("a_test/b.wav", "./a_test/b.wav")] == [str(root / "flat/b.wav")] * 2
    assert finder.find("a_dev/b.wav") == str(root / "a_dev/b.wav")
    assert finder.repairs == {"by their name alone": 2, TAKEN: 1}


def test_a_missing_clip_costs_few_looks_once_the_tree_is_known(tmp_path, monkeypatch):
    root = tree(tmp_path / "data", "x/a.wav")
    finder = SoundFinder(root)
    finder.find("a/b/c/none.wav")
    looks = []
    isfile = os.path.isfile
    monkeypatch.setattr(os.path, "isfile", lambda path: (looks.append(path), isfile(path))[1])
    finder.find("a/b/c/gone.wav")
    assert len(looks) == 1


@pytest.mark.parametrize("listed", ["dev_splits_complete/b.wav", "a/validation/b.wav", "x/train/b.wav"])
def test_a_clip_of_another_split_is_none(tmp_path, listed):
    root = tree(tmp_path / "data", "output_repeated_splits_test/b.wav")
    assert not Path(SoundFinder(root).find(listed)).exists()
    assert not Path(SoundFinder(root / "output_repeated_splits_test").find(listed)).exists()


def test_urls_and_missing_files_stay_as_they_are(tmp_path):
    finder = SoundFinder(tmp_path)
    for name in ("https://example.org/a.wav", "data:audio/wav;base64,AAAA", "/no/such/a.wav", "a\0b"):
        assert finder.find(name) == name
    assert finder.find("no/a.wav") == str(tmp_path / "no/a.wav")
    assert finder.find(f"file://{tree(tmp_path, 'b.wav')}/b.wav") == str(tmp_path / "b.wav")


def test_the_tree_is_read_once_and_only_when_needed(tmp_path, monkeypatch):
    root = tree(tmp_path / "data", "x/a.wav", "x/b.wav", "y/c.wav")
    walks = []
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda *a, **k: (walks.append(a), walk(*a, **k))[1])
    finder = SoundFinder(root)
    finder.find("x/a.wav")
    assert walks == []
    for name in ("z/c.wav", "z/b.wav", "z/none.wav"):
        finder.find(name)
    assert len(walks) == 1


def test_links_in_a_circle_end(tmp_path):
    root = tree(tmp_path / "data", "a/b.wav", "a/._b.wav", ".hidden/c.wav", "a/notes.txt")
    (root / "a" / "again").symlink_to(root)
    assert [path.name for path in sound_files(root)] == ["b.wav"]
