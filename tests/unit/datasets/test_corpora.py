"""A corpus is opened by looking at it; each row once, with a stable id, its place and all of its columns."""

import gzip
import json
import tarfile
from io import BytesIO

import pytest

from kit import corpora_questions, corpora_tables
from kit.corpora_official import write_lines
from kit.corpora_texts import TEXTS
from kit.damaged_clips import clip_bytes, write_clip
from qwen2_audio.datasets.corpus import form_of, open_corpus
from qwen2_audio.datasets.sounds import load_sound
from qwen2_audio.errors import AudioError, ConfigError, DatasetError

GOOD = [clip_bytes(i, healthy=True) for i in range(8)]
BUILDS = {
    corpora_questions.nemo: "json", corpora_questions.open_asr: "json", corpora_questions.ms_swift: "json",
    corpora_questions.kimi: "json", corpora_questions.ultraeval: "json", corpora_questions.comma_table: "table",
    corpora_questions.kaldi: "kaldi", corpora_questions.lhotse_pair: "supervisions",
    corpora_questions.lhotse_cuts: "cuts", corpora_questions.folder_with_texts: "sounds",
    corpora_questions.tar_shards: "tar", corpora_tables.asr_hub: "parquet", corpora_tables.librispeech_disk: "arrow",
}  # fmt: skip


def refused(path, match):
    with pytest.raises(DatasetError, match=match) as caught:
        list(open_corpus(path).rows())
    assert "\n" not in str(caught.value)


def encoded(sound):
    return sound.source.read() if not isinstance(sound.source, str) else open_bytes(sound.source)


def open_bytes(path):
    with open(path, "rb") as file:
        return file.read()


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_each_form_is_found_and_read(build, tmp_path):
    if BUILDS[build] in ("parquet", "arrow"):
        pytest.importorskip("pyarrow")
    corpus = open_corpus(build(tmp_path / "data", True))
    assert corpus.form == BUILDS[build]
    rows = list(corpus.rows())
    assert rows == list(corpus.rows()) or corpus.form in ("tar", "parquet", "arrow")  # embedded sounds are not compared
    assert [encoded(row.sound) for row in rows] == GOOD * (2 if build is corpora_tables.librispeech_disk else 1)
    assert len({row.id for row in rows}) == len(rows)
    assert [row.id for row in rows] == [row.id for row in corpus.rows()]
    for row in rows:
        load_sound(row.sound)
        json.dumps(dict(row.columns))  # nothing encoded is left in them


def test_ids_are_the_rows_own_else_the_path_below_the_corpus(tmp_path):
    for i in range(3):
        write_clip(tmp_path / "clips" / f"{i}.wav", i, True)
    rows = [
        {"audio": "clips/0.wav", "id": 7},
        {"audio": str(tmp_path / "clips" / "1.wav")},
        {"audio": "clips/2.wav", "offset": 0.1, "duration": 0.2},
        {"audio": "clips/2.wav", "offset": 0.3, "duration": 0.1},
    ]
    data = write_lines(tmp_path / "list.jsonl", rows)
    found = list(open_corpus(data).rows())
    assert [row.id for row in found] == ["7", "clips/1.wav", "clips/2.wav@0.1", "clips/2.wav@0.3"]
    assert [row.where for row in found] == [f"list.jsonl, line {n}" for n in (1, 2, 3, 4)]


def test_a_file_is_known_by_its_bytes_and_not_by_its_ending(tmp_path):
    rows = [{"audio": "a.wav", "text": "x"}]
    for name, data in (
        ("a.csv", json.dumps(rows[0]).encode()),
        ("b.dat", json.dumps(rows).encode()),
        ("c.json", gzip.compress(json.dumps(rows[0]).encode())),
        ("d.txt", b"\xef\xbb\xbf" + json.dumps(rows, indent=2).encode()),
        ("e.jsonl", json.dumps({"version": 1, "rows": rows}, indent=1).encode()),
        ("f.bin", b"path\ttext\na.wav\tx\n"),
        ("g.bin", b'"path","text"\n"a.wav","x"\n'),
    ):
        (tmp_path / name).write_bytes(data)
        (row,) = open_corpus(tmp_path / name).rows()
        assert row.columns["text"] == "x", name
    (tmp_path / "sound.bin").write_bytes(GOOD[0])
    assert form_of(tmp_path / "sound.bin") == "sounds"


def test_quotation_marks_are_text_in_tables_with_tabs_and_marks_in_others(tmp_path):
    (tmp_path / "a.tsv").write_text('path\ttext\na.wav\t"Quoted" he said\nb.wav\t"open\n')
    (tmp_path / "a.csv").write_text('path,text\na.wav,"one, two\nthree"\nb.wav,four\n')
    found = [[(row.columns["text"], row.where) for row in open_corpus(tmp_path / n).rows()] for n in ("a.tsv", "a.csv")]
    assert found == [
        [('"Quoted" he said', "a.tsv, line 2"), ('"open', "a.tsv, line 3")],
        [("one, two\nthree", "a.csv, line 3"), ("four", "a.csv, line 4")],
    ]


def test_a_list_larger_than_a_block_is_read_a_block_at_a_time(tmp_path, monkeypatch):
    from qwen2_audio.datasets import lines

    monkeypatch.setattr(lines, "_BLOCK", 50)
    rows = [{"audio": f"{i}.wav", "text": "é" * (i * 7 % 90), "nested": [{"a": i}]} for i in range(60)]
    for indent in (None, 2):
        (tmp_path / "list.json").write_text(json.dumps(rows, indent=indent, ensure_ascii=False), encoding="utf-8")
        assert [columns for columns, _ in lines.read_json(tmp_path / "list.json")] == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"audio": "a.wav"}\n{"audio": \n', r"^list\.jsonl, line 2 is not JSON \(.*\); expected one object a line"),
        (b'{"audio": "a.wav"}\n[1]\n', r"^list\.jsonl, line 2 is a list; expected an object with a row's columns\.$"),
        (b'[{"audio": "a.wav"}, {"audio": ', r"^list\.jsonl, row 2 is not JSON"),
        (b'[{"audio": "a.wav"}, 3]', r"^list\.jsonl, row 2 is a int; expected an object"),
        (b'{"audio": "a.wav"}\n{"audio": "\xff"}\n', r"^list\.jsonl, line 2 is not UTF-8 text \(byte 11\)\.$"),
        (b"path\ttext\na.wav\tx\nb.wav\n", r"^list\.jsonl, line 3 has 1 values; expected 2, one for each column\.$"),
        (b"   \n", r"list\.jsonl is empty; expected rows\.$"),
        (b"some words\nmore words\n", r"list\.jsonl: the first line \('some words'\) names no column with a sound"),
        (b'{"audio": ["a.wav", "b.wav"]}\n', r"^list\.jsonl, line 1: the row has 2 clips; expected one\.$"),
        (b'{"audio": 3}\n', r"^list\.jsonl, line 1: the clip is 3; expected a path, a URL, or base64 in 'bytes'\.$"),
        (b'{"audio": "a.wav", "offset": -1}\n', r"^list\.jsonl, line 1: offset is -1; expected seconds, a number of 0"),
        (gzip.compress(b'{"audio": "a.wav"}\n' * 999, mtime=0)[:-20], r"^list\.jsonl is damaged after line \d+: "),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_with_its_line(tmp_path, content, message):
    (tmp_path / "list.jsonl").write_bytes(content)
    refused(tmp_path / "list.jsonl", message)


def test_folders_that_leave_a_choice(tmp_path):
    refused(tmp_path / "gone", "There is no file or folder")
    refused(tmp_path, "holds neither a list of clips nor sound files")
    for name in ("a.jsonl", "b.csv"):
        (tmp_path / name).write_text("x")
    refused(tmp_path, r"holds 2 lists \(a\.jsonl, b\.csv\); give one of them\.$")


def test_kaldis_segments_cut_and_commands_are_refused(tmp_path):
    write_clip(tmp_path / "r.wav", 0, True)
    (tmp_path / "wav.scp").write_text("rec r.wav\n")
    (tmp_path / "segments").write_text("u1 rec 0.1 0.3\nu2 rec 0.3 0.5\n")
    (tmp_path / "text").write_text("u1 one\nu2 two\n")
    rows = list(open_corpus(tmp_path).rows())
    assert [(row.id, row.columns["text"], row.sound.offset) for row in rows] == [("u1", "one", 0.1), ("u2", "two", 0.3)]
    assert load_sound(rows[0].sound).seconds == pytest.approx(0.2)
    (tmp_path / "segments").write_text("u1 nothing 0.1 0.3\n")
    refused(tmp_path, r"^segments, line 1 names the recording 'nothing', which wav\.scp does not have\.$")
    (tmp_path / "segments").unlink()
    (tmp_path / "wav.scp").write_text("rec sph2pipe -f wav r.sph |\n")
    refused(tmp_path, r"^wav\.scp, line 1 is a command; commands are not run here\.")


def test_lhotses_parts_are_cut_and_its_commands_refused(tmp_path):
    write_clip(tmp_path / "r.wav", 0, True)
    recording = {"id": "r", "sources": [{"type": "file", "channels": [0], "source": "r.wav"}], "duration": 0.5}
    cut = {"id": "c", "start": 0.1, "duration": 0.2, "channel": 0, "recording": recording, "supervisions": [
        {"start": 0.1, "text": "two"}, {"start": 0.0, "text": "one"}]}  # fmt: skip
    data = write_lines(tmp_path / "cuts.jsonl", [cut])
    (row,) = open_corpus(data).rows()
    assert row.columns["text"] == "one two" and load_sound(row.sound).seconds == pytest.approx(0.2)
    recording["sources"][0] |= {"type": "command", "source": "rm -r /"}
    refused(
        write_lines(data, [cut]),
        r"^cuts\.jsonl, line 1: the recording is of type 'command'; expected a file or a URL\.$",
    )
    recording["sources"][0] |= {"type": "file", "channels": [0, 1]}
    refused(write_lines(data, [cut]), "channel \\[0\\] of a recording with 2; all are heard together")
    recording["sources"][0] |= {"channels": [0]}
    cut["start"] = "soon"
    refused(write_lines(data, [cut]), r"^cuts\.jsonl, line 1: start is 'soon'; expected seconds\.$")


def test_tar_members_are_read_from_their_place(tmp_path):
    path = corpora_questions.tar_shards(tmp_path, True) / "shard-0000.tar"
    rows = list(open_corpus(path).rows())
    assert [row.columns for row in rows] == [
        {"key": f"{i:04d}", "text": TEXTS["en"][i], "speaker": "a"} for i in range(4)
    ]
    assert rows[1].sound.name == "shard-0000.tar#0001.wav"
    data = path.read_bytes()
    path.write_bytes(data[:1500])
    with pytest.raises(AudioError, match="is cut off"):
        rows[3].sound.source.read()
    refused(path, "is no tar archive, or is damaged or compressed")
    path.with_suffix(".tar.gz").write_bytes(gzip.compress(data))
    path.unlink()
    with tarfile.open(tmp_path / "two.tar", "w") as archive:
        for name in ("a.wav", "a.flac"):
            info = tarfile.TarInfo(name)
            info.size = 4
            archive.addfile(info, BytesIO(b"1234"))
    refused(tmp_path / "two.tar", r"two\.tar, a has two sounds; expected one\.$")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    import sys

    (tmp_path / "a.parquet").write_bytes(b"PAR1....PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"needs pyarrow: pip install 'qwen2-audio\[parquet\]'\.$"):
        list(open_corpus(tmp_path).rows())


def test_a_broken_parquet_file_is_named(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1....PAR1")
    refused(tmp_path, r"a\.parquet cannot be read as a Parquet or Arrow file: ")
    (tmp_path / "a.parquet").unlink()
    data = corpora_tables.librispeech_disk(tmp_path / "d", True) / "test.clean" / "data-00000-of-00001.arrow"
    data.write_bytes(data.read_bytes()[:900])
    refused(data, r"arrow cannot be read as a Parquet or Arrow file: ")


@pytest.mark.parametrize("large", [False, True])
def test_parquet_sounds_are_read_when_asked_for_and_in_any_order(tmp_path, monkeypatch, large):
    pytest.importorskip("pyarrow")
    from qwen2_audio.datasets import arrow

    monkeypatch.setattr(arrow, "_LARGE", 10 if large else 1 << 30)
    monkeypatch.setattr(arrow, "_FEW", 2)
    read = []
    monkeypatch.setattr(arrow, "_some_sounds", lambda *a, real=arrow._some_sounds: (read.append(a), real(*a))[1])
    for cached in (arrow._whole_group, arrow._part_of_group):
        cached.cache_clear()
    rows = list(open_corpus(corpora_tables.asr_hub(tmp_path, True)).rows())
    assert read == []
    assert [rows[i].sound.source.read() for i in (7, 0, 3, 1, 6, 2, 5, 4)] == [
        GOOD[i] for i in (7, 0, 3, 1, 6, 2, 5, 4)
    ]
    assert rows[4].sound.name == "test-00000-of-00001.parquet#4.wav"


def test_columns_are_kept_as_json_can_hold_them(tmp_path):
    pytest.importorskip("pyarrow")
    from datetime import date
    from decimal import Decimal

    row = {"text": "x", "day": date(2026, 1, 2), "price": Decimal("1.50"), "blob": b"123", "list": [{"a": 1.5}]}
    corpora_tables.write_parquet(tmp_path / "a.parquet", [row], True)
    (found,) = open_corpus(tmp_path).rows()
    kept = {"audio": "0.wav", "text": "x", "day": "2026-01-02", "price": "1.50", "blob": None, "list": [{"a": 1.5}]}
    assert json.loads(json.dumps(found.columns)) == kept


def test_base64_in_a_row_is_a_sound_and_no_column(tmp_path):
    import base64

    data = write_lines(
        tmp_path / "l.jsonl", [{"audio": {"bytes": base64.b64encode(GOOD[0]).decode(), "path": "x.wav"}}]
    )
    (row,) = open_corpus(data).rows()
    assert row.sound.source.read() == GOOD[0]
    assert row.columns == {"audio": "x.wav"}


def test_a_duration_is_a_part_only_where_it_is_shorter_than_the_file(tmp_path):
    write_clip(tmp_path / "a.wav", 0, True)  # 0.5 s
    rows = [{"audio": "a.wav", "duration": d} for d in (0.45, 0.2, 9.0)] + [{"audio": "a.wav", "duration": "00:01"}]
    found = list(open_corpus(write_lines(tmp_path / "l.jsonl", rows)).rows())
    assert [load_sound(row.sound).seconds for row in found] == pytest.approx([0.5, 0.2, 0.5, 0.5])
    rows = [{"audio": "a.wav", "offset": 0.6}]
    (row,) = open_corpus(write_lines(tmp_path / "l.jsonl", rows)).rows()
    with pytest.raises(AudioError, match=r"a\.wav lasts 0\.50 s, and the row's part begins at 0\.6 s\.$"):
        load_sound(row.sound)
