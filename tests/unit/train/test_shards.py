"""Clips inside .tar files."""

import io
import json
import os
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest

from qwen2_audio.errors import AudioError
from qwen2_audio.inputs.processor import Qwen2AudioProcessor
from qwen2_audio.train import shards
from qwen2_audio.train.batches import batches, read
from qwen2_audio.train.data import Dataset
from qwen2_audio.train.quarantine import Quarantine


@pytest.fixture
def shard(tmp_path, wav_file):
    """shards/0001.tar with three clips in it, each beside its caption, as WebDataset has them."""
    (tmp_path / "shards").mkdir()
    path = tmp_path / "shards" / "0001.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(3):
            wav_file(f"{number}.wav", 0.3 + 0.2 * number, hertz=300.0 * (number + 1))
            tar.add(tmp_path / f"{number}.wav", f"clips/{number}.wav")
            note = tarfile.TarInfo(f"clips/{number}.json")
            note.size = 2
            tar.addfile(note, io.BytesIO(b"{}"))
    return path


@pytest.fixture
def dataset(tmp_path, shard, tiny_checkpoint):
    def make(*audios):
        row = [{"role": "user", "content": None}, {"role": "assistant", "content": "a sound"}]
        lines = []
        for audio in audios:
            row[0]["content"] = [{"type": "audio", "audio": audio}]
            lines.append(json.dumps({"messages": row}))
        (tmp_path / "rows.jsonl").write_text("\n".join(lines))
        return Dataset(tmp_path / "rows.jsonl", Qwen2AudioProcessor.from_pretrained(tiny_checkpoint))

    return make


def test_a_member_is_heard_as_the_file_it_was(dataset):
    rows = dataset(*(f"shards/0001.tar#clips/{n}.wav" for n in range(3)), *(f"{n}.wav" for n in range(3)))
    assert rows.lengths()[:3].tolist() == rows.lengths()[3:].tolist()
    assert len(set(rows.lengths().tolist())) == 3
    for number in range(3):
        packed, plain = rows.example(number), rows.example(number + 3)
        assert packed.ids == plain.ids
        assert np.array_equal(packed.mels[0], plain.mels[0])


def test_worker_processes_read_them_too(dataset):
    rows = dataset(*(f"shards/0001.tar#clips/{n}.wav" for n in range(3)))
    plan = batches(rows, batch_size=2)
    found = [example.line for examples in read(rows, plan, Quarantine(), workers=1) for example in examples]
    assert sorted(found) == [1, 2, 3]


def test_what_is_not_there_is_a_row_left_out_with_its_reason(dataset, tmp_path):
    (tmp_path / "text.tar").write_text("not an archive " * 100)
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as tar:
        tar.add(tmp_path / "0.wav", "0.wav")
    rows = dataset(
        "shards/0001.tar#clips/7.wav", "shards/0002.tar#clips/0.wav", "text.tar#0.wav", "packed.tar#0.wav",
        "shards/0001.tar#clips/0.json", "shards/0001.tar",
    )  # fmt: skip
    quarantine = Quarantine()
    with pytest.raises(ValueError, match="No row"):
        list(read(rows, [list(range(6))], quarantine))
    reasons = list(quarantine.rows.values())
    assert re.search(r"has no member 'clips/7.wav' among its 6. Did you mean 'clips/\d.wav'\?", reasons[0])
    assert "No such file" in reasons[1] and "0002.tar. Relative paths" in reasons[1]
    assert "text.tar is not a .tar archive, or is damaged" in reasons[2]
    assert "packed.tar is not a .tar archive, or is damaged" in reasons[3]
    assert "clips/0.json" in reasons[4]
    assert "0001.tar" in reasons[5]


def test_a_file_called_so_is_itself(tmp_path, wav_file):
    wav_file("odd.tar#name.wav")
    assert shards.split(tmp_path / "odd.tar#name.wav") is None
    assert shards.split(tmp_path / "a.tar#b#c.wav") == (tmp_path / "a.tar", "b#c.wav")


def test_a_window_reads_seeks_and_ends_as_a_file_of_its_own(shard, tmp_path):
    whole = (tmp_path / "1.wav").read_bytes()
    with shards.open_member(shard, "clips/1.wav") as file:
        assert file.read() == whole
        assert file.read(1) == b""
        assert file.seek(-10, io.SEEK_END) == len(whole) - 10
        assert file.read(100) == whole[-10:]
        file.seek(4)
        file.seek(4, io.SEEK_CUR)
        assert file.read(4) == b"WAVE"


def test_an_archive_that_was_written_anew_is_listed_anew(shard, tmp_path):
    shards.open_member(shard, "clips/1.wav").close()
    with tarfile.open(shard, "w") as tar:
        tar.add(tmp_path / "2.wav", "other.wav")
    os.utime(shard, ns=(1, 1))
    shards.open_member(shard, "other.wav").close()
    with pytest.raises(AudioError, match=r"has no member 'clips/1\.wav'"):
        shards.open_member(shard, "clips/1.wav")


def test_a_folder_may_have_a_number_sign_in_its_name():
    assert shards.split(Path("set #1/c.tar#a#b.wav")) == (Path("set #1/c.tar"), "a#b.wav")
