"""Benchmarks of questions as their publishers lay them out, and a user's own manifests for `asr` and `qa`."""

from __future__ import annotations

import csv
import gzip
import json
import tarfile
from io import BytesIO
from pathlib import Path

from kit.corpora_official import write_lines
from kit.corpora_texts import TEXTS
from kit.damaged_clips import clip_bytes, write_clip

ROWS = 8
CHOICES = ("a dog", "a cat", "the rain", "a door")


def _json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")
    return path


def airbench_chat_tree(root: Path, healthy: bool) -> Path:
    rows: list[dict] = []
    for task, dataset in (("speech_QA", "iemocap"), ("sound_QA", "clotho")):
        for i in range(ROWS):
            write_clip(root / "Chat" / f"{task}_{dataset}" / f"{i}.wav", i, healthy)
            rows.append({
                "path": f"{i}.wav", "question": f"What is heard in clip {i}?", "answer_gt": f"It is {CHOICES[i % 4]}.",
                "meta_info": f"caption {i}", "task_name": task, "dataset_name": dataset, "uniq_id": len(rows),
            })  # fmt: skip
    _json(root / "Chat" / "Chat_meta.json", rows)
    return root / "Chat"


def airbench_foundation_tree(root: Path, healthy: bool) -> Path:
    rows: list[dict] = []
    parts = (("Sound_AQA", "avqa", "wav"), ("Audio_Grounding", "AudioGrounding", "flac"))
    for task, dataset, ending in parts:
        for i in range(ROWS):
            write_clip(root / "Foundation" / f"{task}_{dataset}" / f"{i}.{ending}", i, healthy)
            letters: dict = {f"choice_{letter}": choice for letter, choice in zip("abcd", CHOICES, strict=True)}
            if i % 2:
                letters |= {"choice_c": None, "choice_d": None}
            rows.append({
                "path": f"{i}.wav", "question": f"What is it, {i}?", **letters, "answer_gt": CHOICES[i % 2],
                "task_name": task, "dataset_name": dataset, "uniq_id": len(rows),
            })  # fmt: skip
    _json(root / "Foundation" / "Foundation_meta.json", rows)
    return root / "Foundation"


def _mmau(root: Path, healthy: bool, audios: str, name: str, answered: bool) -> Path:
    rows = []
    for i in range(ROWS):
        write_clip(root / audios / f"id-{i}.wav", i, healthy)
        row = {
            "id": f"id-{i}", "audio_id": f"./{audios}/id-{i}.wav", "question": f"Which sound is {i}?",
            "choices": list(CHOICES), "dataset": "x", "task": ("sound", "music", "speech")[i % 3], "split": "test-mini",
            "category": ["a", "b"] if i == 3 else "a", "sub-category": "b", "difficulty": "easy",
        }  # fmt: skip
        rows.append({**row, "answer": CHOICES[i % 4]} if answered else row)
    _json(root / name, rows)
    return root


def mmau_tree(root: Path, healthy: bool) -> Path:
    return _mmau(root, healthy, "test-mini-audios", "mmau-test-mini.json", answered=True)


def mmau_test_tree(root: Path, healthy: bool) -> Path:
    return _mmau(root, healthy, "test-audios", "mmau-test.json", answered=False)


def mmar_tree(root: Path, healthy: bool) -> Path:
    rows = []
    for i in range(ROWS):
        write_clip(root / "audio" / f"y{i}.wav", i, healthy)
        rows.append({
            "id": f"y{i}", "audio_path": f"./audio/y{i}.wav", "question": f"What is {i}?",
            "choices": list(CHOICES[: 2 + i % 3]), "answer": CHOICES[i % 2],
            "modality": ("sound", "music")[i % 2], "category": "Signal Layer",
            "sub-category": "s", "language": "en", "source": "youtube", "url": "u", "timestamp": "00:01,00:02",
        })  # fmt: skip
    write_lines(root / "MMAR-meta.jsonl", rows)
    return root


def mmsu_tree(root: Path, healthy: bool) -> Path:
    rows = []
    for i in range(ROWS):
        write_clip(root / "audio" / f"m{i}.wav", i, healthy)
        letters = {f"choice_{letter}": choice for letter, choice in zip("abcd", CHOICES, strict=True)}
        rows.append({
            "id": f"m{i}", "audio_path": f"audio/m{i}.wav", "task_name": "t", "question": f"What is {i}?", **letters,
            "answer_gt": CHOICES[i % 4], "category": ("Perception", "Reasoning")[i % 2], "sub-category": "Semantics",
            "sub-sub-category": "x", "linguistics_sub_discipline": "y",
        })  # fmt: skip
    write_lines(root / "mmsu.jsonl", rows)
    return root


OPENAUDIOBENCH = {
    "alpaca_eval": ("instruction", "output"), "trivia_qa": ("question", "answer_normalized_aliases"),
    "reasoning_qa": ("Prompt", "参考答案"), "web_questions": ("question", "answers"),
    "llama_questions": ("Questions", "Answer"),
}  # fmt: skip


def openaudiobench_tree(root: Path, healthy: bool) -> Path:
    for subset, (question, answer) in OPENAUDIOBENCH.items():
        folder = root / "eval_datas" / subset
        for i in range(ROWS):
            write_clip(folder / "audios" / f"{subset}_{i}.mp3", i, healthy)
        with (folder / f"{subset}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([question, answer, "audio_filename"])
            writer.writerows([f"What, then, is {i}?", CHOICES[i % 4], f"{subset}_{i}.mp3"] for i in range(ROWS))
    return root


def _clips(root: Path, healthy: bool, ending: str = "wav") -> list[str]:
    for i in range(ROWS):
        write_clip(root / "clips" / f"{i}.{ending}", i, healthy)
    return [f"clips/{i}.{ending}" for i in range(ROWS)]


def nemo(root: Path, healthy: bool) -> Path:
    rows = [
        {"audio_filepath": clip, "duration": 0.5, "text": TEXTS["en"][i]}
        for i, clip in enumerate(_clips(root, healthy))
    ]  # fmt: skip
    for i in (5,):
        rows[i]["duration"] = 35.0
    for i, row in enumerate(rows):
        if i != 5:
            row["duration"] = round(0.5 + 0.02 * i, 2)
    return write_lines(root / "manifest.json", rows)


def open_asr(root: Path, healthy: bool) -> Path:
    clips = _clips(root, healthy)
    rows = [
        {"audio_filepath": clip, "duration": 40.0, "time": 0.1, "text": TEXTS["en"][i], "pred_text": "x"}
        for i, clip in enumerate(clips)
    ]
    return write_lines(root / "MODEL_x_DATASET_y_test.jsonl", rows)


def ms_swift(root: Path, healthy: bool) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": "<audio>Say what you hear."},
                      {"role": "assistant", "content": TEXTS["en"][i]}],
         "audios": [clip]} for i, clip in enumerate(_clips(root, healthy))
    ]  # fmt: skip
    return write_lines(root / "swift.jsonl", rows)


def kimi(root: Path, healthy: bool) -> Path:
    rows = [
        {
            "index": i,
            "audio_path": clip,
            "question": "",
            "answer": TEXTS["en"][i],
            "subset": "part",
            "audio_content": "",
        }
        for i, clip in enumerate(_clips(root, healthy))
    ]
    return write_lines(root / "kimi.jsonl", rows)


def ultraeval(root: Path, healthy: bool) -> Path:
    rows = [{"WavPath": f"/test/{c}", "Transcript": TEXTS["en"][i]} for i, c in enumerate(_clips(root, healthy))]
    return write_lines(root / "ultra.jsonl", rows)


def comma_table(root: Path, healthy: bool) -> Path:
    clips = _clips(root, healthy)
    with (root / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "transcription"])
        writer.writerows(zip(clips, TEXTS["en"], strict=True))
    return root


def kaldi(root: Path, healthy: bool) -> Path:
    clips = _clips(root, healthy)
    (root / "wav.scp").write_text("".join(f"utt{i} {clip}\n" for i, clip in enumerate(clips)))
    (root / "text").write_text("".join(f"utt{i} {TEXTS['en'][i]}\n" for i in range(ROWS)))
    (root / "utt2spk").write_text("".join(f"utt{i} spk{i // 4}\n" for i in range(ROWS)))
    return root


def _gzip_lines(path: Path, rows: list[dict]) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def _recording(i: int, clip: str) -> dict:
    source = {"type": "file", "channels": [0], "source": clip}
    return {"id": f"rec{i}", "sources": [source], "sampling_rate": 16000, "num_samples": 8000, "duration": 40.0}


def lhotse_pair(root: Path, healthy: bool) -> Path:
    clips = _clips(root, healthy)
    _gzip_lines(root / "x_recordings_test.jsonl.gz", [_recording(i, clip) for i, clip in enumerate(clips)])
    said = [
        {"id": f"sup{i}", "recording_id": f"rec{i}", "start": 0.0, "duration": 40.0, "channel": 0,
         "text": TEXTS["en"][i], "speaker": f"s{i // 4}"} for i in range(ROWS)
    ]  # fmt: skip
    _gzip_lines(root / "x_supervisions_test.jsonl.gz", said)
    return root


def lhotse_cuts(root: Path, healthy: bool) -> Path:
    rows = [
        {"id": f"cut{i}", "start": 0.0, "duration": 40.0, "channel": 0, "type": "MonoCut",
         "recording": _recording(i, clip),
         "supervisions": [{"id": f"s{i}", "start": 0.0, "duration": 40.0, "text": TEXTS["en"][i], "speaker": "a"}]}
        for i, clip in enumerate(_clips(root, healthy))
    ]  # fmt: skip
    _gzip_lines(root / "cuts.jsonl.gz", rows)
    return root


def folder_with_texts(root: Path, healthy: bool) -> Path:
    for i, clip in enumerate(_clips(root, True)):
        (root / clip).with_suffix(".txt").write_text(TEXTS["en"][i])
        data = clip_bytes(i, healthy)
        (root / clip).write_bytes(b"" if data is None else data)  # a folder of sounds cannot miss one
    return root


def tar_shards(root: Path, healthy: bool) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for shard in range(2):
        with tarfile.open(root / f"shard-{shard:04d}.tar", "w") as archive:
            for i in range(shard * ROWS // 2, (shard + 1) * ROWS // 2):
                data = clip_bytes(i, healthy)
                members = {
                    "wav": b"" if data is None else data,
                    "txt": TEXTS["en"][i].encode(),
                    "json": b'{"speaker": "a"}',
                }
                for ending, content in members.items():
                    info = tarfile.TarInfo(f"{i:04d}.{ending}")
                    info.size = len(content)
                    archive.addfile(info, BytesIO(content))
    return root


def qa_lines(root: Path, healthy: bool) -> Path:
    rows = [
        {"audio": clip, "question": f"What is {i}?", "answer": "B" if i % 2 else CHOICES[1], "choices": list(CHOICES)}
        for i, clip in enumerate(_clips(root, healthy))
    ]
    return write_lines(root / "qa.jsonl", rows)


def qa_conversations(root: Path, healthy: bool) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": [{"type": "audio", "audio": clip},
                                                   {"type": "text", "text": f"What is {i}?"}]},
                      {"role": "assistant", "content": CHOICES[i % 4]}]}
        for i, clip in enumerate(_clips(root, healthy))
    ]  # fmt: skip
    return write_lines(root / "conversations.jsonl", rows)


_ASR = (
    nemo, open_asr, ms_swift, kimi, ultraeval, comma_table, kaldi, lhotse_pair, lhotse_cuts, folder_with_texts,
    tar_shards,
)  # fmt: skip
_SUBSETS = {"alpaca": "alpaca_eval", "llama": "llama_questions", "reasoning": "reasoning_qa", "trivia": "trivia_qa",
            "web": "web_questions"}  # fmt: skip
FORMS: list = [
    ("airbench-chat", "airbench_chat", airbench_chat_tree, ("speech_QA", "sound_QA")),
    ("airbench-foundation", "airbench_foundation", airbench_foundation_tree, (
        "Sound_AQA_avqa", "Audio_Grounding_AudioGrounding")),
    ("mmau-mini", "mmau", mmau_tree, ("mmau-mini",)),
    ("mmau-mini-v1", "mmau", mmau_tree, ("mmau-mini-v1",)),
    ("mmau-test", "mmau", mmau_test_tree, ("mmau-test",)),
    ("mmar", "mmar", mmar_tree, ("mmar",)),
    ("mmsu", "mmsu", mmsu_tree, ("mmsu",)),
    *((f"openaudiobench-{task}", "openaudiobench", openaudiobench_tree, (part,)) for task, part in _SUBSETS.items()),
    *(("asr", "manifest", build, ("part" if build is kimi else "asr",)) for build in _ASR),
    ("qa", "manifest", qa_lines, ("qa",)),
    ("qa", "manifest", qa_conversations, ("qa",)),
]  # fmt: skip
