"""The benchmarks in Parquet and Arrow files, as the hub has them: an audio column of {bytes, path}, by pyarrow."""

from __future__ import annotations

import json
from pathlib import Path

from kit.corpora_questions import CHOICES
from kit.corpora_texts import EMOTIONS, TEXTS, VOCAL_SOUNDS
from kit.damaged_clips import clip_bytes, write_clip

ROWS = 8


def _table(rows: list[dict], healthy: bool, names: list[str] | None = None):
    import pyarrow as pa

    names = names or [f"{i}.wav" for i in range(len(rows))]
    audio = [{"bytes": clip_bytes(i % ROWS, healthy), "path": names[i]} for i in range(len(rows))]
    audio_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {key: pa.array([row[key] for row in rows]) for key in rows[0]}
    return pa.table({"audio": pa.array(audio, audio_type), **columns})


def write_parquet(path: Path, rows: list[dict], healthy: bool, names: list[str] | None = None) -> None:
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(_table(rows, healthy, names), path, row_group_size=3)


def librispeech_hub(root: Path, healthy: bool) -> Path:
    for part in ("clean", "other"):
        for split in ("validation", "test"):
            rows = [
                {
                    "file": f"/x/{i}.flac",
                    "text": TEXTS["EN"][i],
                    "speaker_id": 1272 + i // 4,
                    "chapter_id": 1,
                    "id": f"1272-1-{i}",
                }
                for i in range(ROWS)
            ]
            write_parquet(root / part / split / "0000.parquet", rows, healthy)
    return root


def librispeech_paths(root: Path, healthy: bool) -> Path:
    """With paths only, of another machine."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    audio = [{"bytes": None, "path": f"/home/somebody/cache/{i}.flac"} for i in range(ROWS)]
    audio_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for i in range(ROWS):
        write_clip(root / "sounds" / f"{i}.flac", i, healthy)
    texts = pa.array(TEXTS["EN"])
    (root / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table({"audio": pa.array(audio, audio_type), "text": texts}),
        root / "data" / "test.clean-00000-of-00001.parquet",
    )
    return root


def librispeech_disk(root: Path, healthy: bool) -> Path:
    """As `datasets.save_to_disk` writes it: Arrow streams."""
    import pyarrow as pa

    rows = [{"text": TEXTS["EN"][i], "id": f"1272-1-{i}"} for i in range(ROWS)]
    table = _table(rows, healthy)
    for split in ("test.clean", "test.other"):
        folder = root / split
        folder.mkdir(parents=True)
        with (
            pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file,
            pa.ipc.new_stream(file, table.schema) as out,
        ):
            out.write_table(table, max_chunksize=3)
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
        (folder / "dataset_info.json").write_text("{}")
    (root / "dataset_dict.json").write_text(json.dumps({"splits": ["test.clean", "test.other"]}))
    return root


def voices_hub(root: Path, healthy: bool) -> Path:
    for language, locale in (("en", "en"), ("zh", "zh-CN"), ("yue", "yue"), ("fr", "fr")):
        for split in ("test", "validation"):
            rows = [{"sentence": TEXTS[language][i], "client_id": f"c{i // 2}", "locale": locale} for i in range(ROWS)]
            write_parquet(root / locale / f"{split}-00000-of-00001.parquet", rows, healthy)
    return root


def fleurs_hub(root: Path, healthy: bool) -> Path:
    for split in ("test", "validation"):
        rows = [
            {"id": 1600 + i // 2, "num_samples": 8000, "path": f"{9000 + i}.wav",
             "transcription": " ".join(TEXTS["zh"][i]),
             "raw_transcription": TEXTS["zh"][i], "gender": 0, "lang_id": 14} for i in range(ROWS)
        ]  # fmt: skip
        names = [f"{9000 + i}.wav" for i in range(ROWS)]
        write_parquet(root / "cmn_hans_cn" / split / "0000.parquet", rows, healthy, names)
    return root


def covost_hub(root: Path, healthy: bool) -> Path:
    for spoken, target in (("en", "zh"), ("zh", "en"), ("en", "de"), ("de", "en")):
        for split in ("test", "validation"):
            rows = [
                {
                    "client_id": f"c{i // 2}",
                    "file": f"{i}.mp3",
                    "sentence": "s",
                    "translation": TEXTS[target][i],
                    "id": f"{split}{i}",
                }
                for i in range(ROWS)
            ]
            write_parquet(root / f"{spoken}_{target}" / f"{split}-00000-of-00001.parquet", rows, healthy)
    return root


def meld_hub(root: Path, healthy: bool) -> Path:
    for split in ("test", "validation"):
        rows = [
            {"Emotion": EMOTIONS[i], "Sentiment": "neutral", "Dialogue_ID": i // 2, "Utterance_ID": i}
            for i in range(ROWS)
        ]
        write_parquet(root / "data" / f"{split}-00000-of-00001.parquet", rows, healthy)
    return root


def vocalsound_hub(root: Path, healthy: bool) -> Path:
    for split in ("test", "val"):
        rows = [{"answer": VOCAL_SOUNDS[i], "age_group": "x", "spk_id": f"f{i // 4}"} for i in range(ROWS)]
        write_parquet(root / "data" / f"{split}-00000-of-00001.parquet", rows, healthy)
    return root


def mmau_hub(root: Path, healthy: bool) -> Path:
    for split in ("test", "test_mini"):
        rows = [
            {"id": f"id-{i}", "question": f"Which is {i}?", "choices": json.dumps(CHOICES), "answer": CHOICES[i % 4],
             "task": "sound", "difficulty": "easy"} for i in range(ROWS)
        ]  # fmt: skip
        write_parquet(root / "data" / f"{split}-00000-of-00001.parquet", rows, healthy)
    return root


def mmsu_hub(root: Path, healthy: bool) -> Path:
    letters = {f"choice_{letter}": choice for letter, choice in zip("abcd", CHOICES, strict=True)}
    rows = [
        {"id": f"m{i}", "task_name": "t", "question": f"What is {i}?", "answer_gt": CHOICES[i % 4],
         "category": "Perception", **letters}
        for i in range(ROWS)
    ]  # fmt: skip
    write_parquet(root / "data" / "train-00000-of-00001.parquet", rows, healthy)
    return root


VOICEBENCH = {
    "alpacaeval_full": ("test",), "alpacaeval": ("test",), "commoneval": ("test",), "wildvoice": ("test",),
    "sd-qa": ("usa", "gbr", "ind_n"), "openbookqa": ("test",), "mmsu": ("biology", "law"), "bbh": ("test",),
    "ifeval": ("test",), "advbench": ("test",),
}  # fmt: skip


def voicebench_hub(root: Path, healthy: bool) -> Path:
    for subset, splits in VOICEBENCH.items():
        for split in splits:
            rows = [
                {"prompt": f"Say {i}.", "reference": "AB"[i % 2], "id": f"{subset}-{split}-{i}"} for i in range(ROWS)
            ]
            write_parquet(root / subset / f"{split}-00000-of-00001.parquet", rows, healthy)
    return root


def asr_hub(root: Path, healthy: bool) -> Path:
    write_parquet(root / "test-00000-of-00001.parquet", [{"text": text} for text in TEXTS["en"]], healthy)
    return root


_VOICEBENCH = {
    "alpaca": ("alpacaeval_full",), "common": ("commoneval",), "wild": ("wildvoice",),
    "sdqa": ("sd-qa_usa", "sd-qa_gbr", "sd-qa_ind_n"), "obqa": ("openbookqa",), "bbh": ("bbh",), "ifeval": ("ifeval",),
    "advbench": ("advbench",),
}  # fmt: skip
_COVOST = [("en", "zh"), ("zh", "en"), ("en", "de"), ("de", "en")]
FORMS: list = [
    *(
        (f"librispeech-{s}", librispeech_hub, (f"librispeech_{s.replace('-', '_')}",))
        for s in ("dev-clean", "dev-other", "test-clean", "test-other")
    ),
    ("librispeech-test-clean", librispeech_paths, ("librispeech_test_clean",)),
    ("librispeech-test-clean", librispeech_disk, ("librispeech_test_clean",)),
    ("librispeech-test-other", librispeech_disk, ("librispeech_test_other",)),
    *((f"cv15-{language}", voices_hub, (f"cv15_{language}",)) for language in ("en", "zh", "yue", "fr")),
    ("fleurs-zh", fleurs_hub, ("fleurs_zh",)),
    *((f"covost2-{s}-{t}", covost_hub, (f"covost_{s}_{t}_dev", f"covost_{s}_{t}_test")) for s, t in _COVOST),
    ("meld", meld_hub, ("meld_test", "meld_dev")),
    ("vocalsound", vocalsound_hub, ("vocalsound_test", "vocalsound_val")),
    ("mmau-mini", mmau_hub, ("mmau-mini",)),
    ("mmau-test", mmau_hub, ("mmau-test",)),
    ("mmsu", mmsu_hub, ("mmsu",)),
    *((f"voicebench-{task}", voicebench_hub, sources) for task, sources in _VOICEBENCH.items()),
]
