"""Corpora in object stores, as a job meets them: fsspec's store in memory, and S3 as moto's server speaks it."""

from __future__ import annotations

import json
import tarfile
from importlib.util import find_spec

import numpy as np
import pytest

from kit.clip_files import wav_bytes
from qwen2_audio.audio.io import load
from qwen2_audio.datasets.corpus import open_corpus
from qwen2_audio.datasets.remote import is_remote, read_remote
from qwen2_audio.datasets.sounds import load_sound
from qwen2_audio.errors import AudioError, DatasetError


@pytest.fixture
def memory():
    import fsspec

    store = fsspec.filesystem("memory")
    yield store
    store.rm("/", recursive=True)


def fill(put, tmp_path):
    """The same four clips as sounds, as a list, and as a shard."""
    clips = {f"clips/{name}.wav": wav_bytes(0.2, hertz=200.0 + 50 * n) for n, name in enumerate("abcd")}
    for name, data in clips.items():
        put(name, data)
    put("clips/.hidden.wav", b"")
    put("beside/rows.csv", b"id,audio\n1,a.wav\n")
    put("beside/a.wav", clips["clips/a.wav"])
    with tarfile.open(tmp_path / "shard.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in clips.items():
            (tmp_path / "member").write_bytes(data)
            archive.add(tmp_path / "member", name)
    put("shards/0.tar", (tmp_path / "shard.tar").read_bytes())
    return {name.removeprefix("clips/"): load(data) for name, data in clips.items()}


def check(root, expected):
    sounds = list(open_corpus(f"{root}/clips/").rows())
    assert [row.id for row in sounds] == list(expected)
    for row in sounds:
        assert row.sound is not None
        np.testing.assert_array_equal(load_sound(row.sound).waveform, expected[row.id])
    some = [row.id for row in open_corpus(f"{root}/clips/[ab].wav").rows()]
    assert some == ["a.wav", "b.wav"]
    (beside,) = open_corpus(f"{root}/beside/rows.csv").rows()
    assert beside.sound is not None and beside.sound.source == f"{root}/beside/a.wav"
    np.testing.assert_array_equal(load_sound(beside.sound).waveform, expected["a.wav"])
    corpus = open_corpus(f"{root}/shards/*.tar")
    assert corpus.form == "tar" and corpus.count() is None
    for row, waveform in zip(corpus.rows(), expected.values(), strict=True):
        assert row.sound is not None
        np.testing.assert_array_equal(load_sound(row.sound).waveform, waveform)
    with pytest.raises(AudioError, match=f"{root}/clips/z.wav cannot be read"):
        read_remote(f"{root}/clips/z.wav", 1000)
    with pytest.raises(AudioError, match="has 6,444 bytes; expected at most 1,000"):
        read_remote(f"{root}/clips/a.wav", 1000)
    with pytest.raises(DatasetError, match=f"There is no file at {root}/nothing/"):
        open_corpus(f"{root}/nothing/")


def test_sounds_lists_and_shards_of_a_store(memory, tmp_path):
    expected = fill(lambda name, data: memory.pipe_file(f"/bucket/{name}", data), tmp_path)
    check("memory://bucket", expected)


@pytest.mark.skipif(find_spec("s3fs") is None or find_spec("moto") is None, reason="s3fs or moto is not installed")
def test_s3_over_http(tmp_path, monkeypatch):
    import fsspec
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "k"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        store = fsspec.filesystem("s3", skip_instance_cache=True)
        store.mkdir("bucket")
        expected = fill(lambda name, data: store.pipe_file(f"bucket/{name}", data), tmp_path)
        check("s3://bucket", expected)
    finally:
        server.stop()


def test_a_list_here_may_name_clips_in_a_store(memory, tmp_path):
    memory.pipe_file("/bucket/a.wav", wav_bytes(0.2))
    (tmp_path / "rows.jsonl").write_text('{"audio": "memory://bucket/a.wav"}\n')
    (row,) = open_corpus(tmp_path / "rows.jsonl").rows()
    assert row.sound is not None and row.id == "memory://bucket/a.wav"
    assert len(load_sound(row.sound).waveform) == 3200


def test_addresses_are_told_from_paths_and_links():
    assert is_remote("s3://bucket/x") and is_remote("gs://bucket/x")
    assert not any(map(is_remote, ("https://host/x", "file:///x", "clips/x.wav", "C:/x.wav")))


def test_a_store_that_nobody_knows_is_refused():
    with pytest.raises(AudioError, match=r"nowhere://bucket/x.wav is no address that fsspec knows"):
        read_remote("nowhere://bucket/x.wav", 1000)


def test_a_row_s_sound_can_be_sent_to_another_process(tmp_path):
    """Of every form that holds sounds: tar, Parquet, Arrow, base64."""
    import pickle

    data = wav_bytes(0.2)
    expected = load(data)
    for path in _with_embedded_sounds(tmp_path, data):
        (row,) = open_corpus(path).rows()
        sound = pickle.loads(pickle.dumps(row)).sound
        np.testing.assert_array_equal(load_sound(sound).waveform, expected)


def _with_embedded_sounds(folder, data):
    import base64

    (folder / "a.wav").write_bytes(data)
    with tarfile.open(folder / "a.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(folder / "a.wav", "a.wav")
    yield folder / "a.tar"
    (folder / "a.jsonl").write_text(json.dumps({"audio": {"bytes": base64.b64encode(data).decode(), "path": "a.wav"}}))
    yield folder / "a.jsonl"
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    table = pyarrow.table({"audio": [{"bytes": data, "path": "a.wav"}]})
    parquet.write_table(table, folder / "a.parquet")
    yield folder / "a.parquet"
    with pyarrow.OSFile(str(folder / "a.arrow"), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    yield folder / "a.arrow"
