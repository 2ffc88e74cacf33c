"""Recordings for the test: the list is whole, packages are unpacked, words are joined, what is missing is said."""

import json
import struct
import sys
import zlib
from collections import Counter

import numpy as np
import pytest
from recipes.nano import real_world
from recipes.nano.clips import write_wav
from recipes.nano.errors import RecipeError
from recipes.nano.qt_resources import resources
from recipes.nano.real_world import LICENCES, Recording, build, download, joined, read, recordings

from qwen2_audio.audio.io import load
from qwen2_audio.evaluate.nano.sounds.kinds import NAMED

TONE = np.sin(np.arange(1600) / 4).astype(np.float32) / 2


def collection(files, version=2, flags=0, magic=b"qres"):
    """A collection of Qt resources with `files` below one folder."""
    names, data, nodes = b"", b"", []

    def name(text):
        nonlocal names
        at = len(names)
        names += struct.pack(">HI", len(text), 0) + text.encode("utf-16-be")
        return at

    size = b"" if version == 1 else bytes(8)
    nodes.append(struct.pack(">IHII", 0, 2, 1, 1) + size)
    nodes.append(struct.pack(">IHII", name("sounds"), 2, len(files), 2) + size)
    for text, content in files.items():
        packed = struct.pack(">I", len(content)) + zlib.compress(content) if flags & 1 else content
        nodes.append(struct.pack(">IHHHI", name(text), flags, 0, 0, len(data)) + size)
        data += struct.pack(">I", len(packed)) + packed
    tree = b"".join(nodes)
    head = 20
    return (
        magic
        + struct.pack(">IIII", version, head, head + len(tree), head + len(tree) + len(data))
        + tree
        + data
        + names
    )


@pytest.mark.parametrize(("version", "flags"), [(1, 0), (2, 0), (2, 1)], ids=["first", "plain", "compressed"])
def test_the_files_of_a_collection_come_with_their_folders(tmp_path, version, flags):
    files = {"one.ogg": b"abc" * 50, "two.wav": b"x"}
    (tmp_path / "a.rcc").write_bytes(collection(files, version, flags))
    assert dict(resources(tmp_path / "a.rcc")) == {f"sounds/{name}": content for name, content in files.items()}


@pytest.mark.parametrize(("options", "reason"), [({"magic": b"RIFF"}, "does not begin"), ({"flags": 4}, "Zstandard")])
def test_what_is_no_readable_collection_is_refused(tmp_path, options, reason):
    (tmp_path / "a.rcc").write_bytes(collection({"one.ogg": b"abc"}, **options))
    with pytest.raises(RecipeError, match=reason):
        list(resources(tmp_path / "a.rcc"))


def test_the_list_has_the_numbers_that_the_documentation_states():
    counts = Counter(one.set for one in recordings())
    assert counts == {
        "numbers": 47, "words": 58, "joined_numbers": 33, "joined_words": 25, "outside": 51, "sound": 105,
    }  # fmt: skip
    kinds = {one.truth for one in recordings() if one.set == "sound"}
    assert len(kinds) == 19 and kinds <= set(NAMED)
    assert {one.package for one in recordings()} == set(LICENCES)
    assert len({(one.set, one.files) for one in recordings()}) == len(recordings())
    assert all(len(one.files) > 1 for one in recordings() if one.set.startswith("joined"))


def test_a_line_of_another_set_is_refused(tmp_path):
    (tmp_path / "list.tsv").write_text("set\tpackage\tfiles\ttruth\nwrds\tklettres-data\ta.ogg\tkey\n")
    with pytest.raises(RecipeError, match=r"Line 2 of .*expected a set, a package"):
        recordings(tmp_path / "list.tsv")


def test_joined_words_are_cut_close_and_a_pause_apart():
    quiet = np.zeros(800, np.float32)
    wave = joined([np.concatenate([quiet, TONE, quiet]), TONE], 0.2)
    assert len(wave) == pytest.approx(2 * 1600 + 3200, abs=4)
    assert not wave[1700:4700].any()


def test_recordings_are_written_as_wav_with_a_manifest(monkeypatch, tmp_path, capsys):
    share = tmp_path / "packages" / "klettres-data" / "usr" / "share"
    share.mkdir(parents=True)
    write_wav(TONE, share / "my.wav")
    rcc = tmp_path / "packages" / "gcompris-qt-data" / "usr" / "share" / "gcompris-qt" / "rcc"
    rcc.mkdir(parents=True)
    (rcc / "a.rcc").write_bytes(collection({"bell.wav": (share / "my.wav").read_bytes()}))
    wanted = [
        Recording("joined_words", "klettres-data", ("my.wav", "my.wav"), "my my"),
        Recording("sound", "gcompris-qt-data", ("a.rcc#sounds/bell.wav",), "bell"),
    ]
    monkeypatch.setattr(real_world, "recordings", lambda: wanted)
    monkeypatch.setattr(sys, "argv", ["real_world", str(tmp_path)])
    assert real_world.main() == 0
    entries = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    assert [(entry["set"], entry["truth"], entry["licence"]) for entry in entries] == [
        ("joined_words", "my my", "GPL-2+"), ("sound", "bell", "GPL-3+"),
    ]  # fmt: skip
    assert np.allclose(load(tmp_path / entries[1]["path"]), TONE, atol=1e-3)
    assert "2 recordings" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["gone.ogg", "gone.rcc#a.ogg", "a.rcc#sounds/gone.wav"], ids=["file", "rcc", "inside"])
def test_a_file_that_another_version_lacks_is_named(tmp_path, name):
    rcc = tmp_path / "gcompris-qt" / "rcc"
    rcc.mkdir(parents=True)
    (rcc / "a.rcc").write_bytes(collection({"bell.wav": b"x"}))
    with pytest.raises(RecipeError, match=r"gone.*another version"):
        read(tmp_path, name)


@pytest.mark.parametrize(
    ("search_path", "reason"), [("", "apt-get cannot be found"), ("fake", "`apt-get download nothing` failed: no")]
)
def test_a_package_that_cannot_be_had_is_said(monkeypatch, tmp_path, search_path, reason, capsys):
    if search_path:
        fake = tmp_path / search_path / "apt-get"
        fake.parent.mkdir()
        fake.write_text("#!/bin/sh\necho no >&2\nexit 100\n")
        fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / search_path) + (":/bin" if search_path else ""))
    with pytest.raises(RecipeError, match=reason):
        download("nothing", tmp_path)
    monkeypatch.setattr(real_world, "recordings", lambda: [Recording("words", "nothing", ("a",), "a")])
    monkeypatch.setattr(sys, "argv", ["real_world", str(tmp_path)])
    assert real_world.main() == 2
    assert reason in capsys.readouterr().err
    assert not list((tmp_path / "packages").iterdir()) and not (tmp_path / "manifest.jsonl").exists()


def test_a_package_is_unpacked_once(monkeypatch, tmp_path):
    calls = []

    def call(command, folder):
        calls.append(command[0])
        if command[0] == "apt-get":
            (folder / "some_1_all.deb").touch()
        else:
            (folder / "content").mkdir()

    monkeypatch.setattr(real_world, "_call", call)
    assert download("some", tmp_path) == download("some", tmp_path) == tmp_path / "some" / "usr" / "share"
    assert calls == ["apt-get", "dpkg-deb"]


def test_long_recordings_are_cut(tmp_path):
    share = tmp_path / "packages" / "sonic-pi-samples" / "usr" / "share"
    share.mkdir(parents=True)
    write_wav(np.tile(TONE, 100), share / "loop.wav")
    (entry,) = build(tmp_path, [Recording("sound", "sonic-pi-samples", ("loop.wav",), "drum")])
    assert len(load(tmp_path / entry["path"])) == 8 * 16_000
