"""The official lists, in the form of Qwen2-Audio (with `prompt`) and of Qwen-Audio (without), with their clips."""

from __future__ import annotations

import json
from pathlib import Path

from kit.corpora_texts import EMOTIONS, TEXTS, VOCAL_SOUNDS
from kit.damaged_clips import write_clip

ROWS = 8


def write_lines(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def librispeech_rows(source: str) -> list[tuple[str, str, str]]:
    split = source.removeprefix("librispeech_").replace("_", "-")
    return [
        (f"librispeech/{split}/{1272 + i // 4}/128104/{1272 + i // 4}-128104-{i:04d}.flac", TEXTS["EN"][i], source)
        for i in range(ROWS)
    ]


def aishell2_rows(source: str) -> list[tuple[str, str, str]]:
    channel, split = source.split("_")[1:]
    folder = {"android": "Android"}.get(channel, channel)
    speakers = [f"D{12 + i // 4:04d}" for i in range(ROWS)]
    return [
        (f"aishell/aishell2/eval/{folder}/{split}/wav/{s}/{folder[0]}{s}W{i:04d}.wav", TEXTS["zh"][i], source)
        for i, s in enumerate(speakers)
    ]


def voice_rows(language: str, source: str) -> list[tuple[str, str, str]]:
    return [
        (f"cv/{language}/clips/common_voice_{language}_{100 + i}.mp3", TEXTS[language][i], source) for i in range(ROWS)
    ]


def fleurs_rows(source: str) -> list[tuple[str, str, str]]:
    return [(f"fleurs/cmn_hans_cn/test/{9000 + i}.wav", TEXTS["zh"][i], source) for i in range(ROWS)]


def covost_rows(source: str) -> list[tuple[str, str, str]]:
    _, spoken, target, split = source.split("_")
    clips = [f"cv13/{spoken}/clips/common_voice_{spoken}_{split}_{i}.mp3" for i in range(ROWS)]
    return [(clip, TEXTS[target][i], source) for i, clip in enumerate(clips)]


def meld_rows(source: str) -> list[tuple[str, str, str]]:
    folder = {"meld_test": "output_repeated_splits_test_wav", "meld_dev": "dev_splits_complete_wav"}[source]
    return [(f"MELD/{folder}/dia{i // 2}_utt{i % 2}.wav", EMOTIONS[i], source) for i in range(ROWS)]


def vocalsound_rows(source: str) -> list[tuple[str, str, str]]:
    first = {"vocalsound_test": 3, "vocalsound_val": 40}[source]
    names = [f"f{first + i // 4:04d}_0_{kind.lower().replace(' ', '')}" for i, kind in enumerate(VOCAL_SOUNDS)]
    return [(f"vocalsound/audio_16k/{name}_{i}.wav", VOCAL_SOUNDS[i], source) for i, name in enumerate(names)]


def official(root: Path, healthy: bool, name: str, rows: list[tuple[str, str, str]], prompt: str | None) -> Path:
    """A list and its clips; `prompt` None as in Qwen-Audio's lists."""
    own = {} if prompt is None else {"prompt": prompt}
    lines = [{"audio": audio, **own, "gt": gt, "source": source} for audio, gt, source in rows]
    for i, (audio, _, _) in enumerate(rows):
        write_clip(root / audio, i % ROWS, healthy)
    return write_lines(root / f"{name}.jsonl", lines)


def chat(root: Path, healthy: bool) -> Path:
    rows = []
    for i in range(ROWS):
        audio = f"airbench/Chat/speech_QA_iemocap/{i}.wav"
        write_clip(root / audio, i, healthy)
        query = f"<|audio_bos|><|AUDIO|><|audio_eos|>\nWhat is said in clip {i}?"
        rows.append({"audio": audio, "id": 7 + i, "query": query})
    return write_lines(root / "airbench_level_3_eval.jsonl", rows)


def _of(name: str, rows: list[tuple[str, str, str]], prompt: str | None, label: str):
    def build(root: Path, healthy: bool) -> Path:
        return official(root, healthy, name, rows, prompt)

    build.__name__ = label
    return build


def _both(task: str, name: str, rows: list[tuple[str, str, str]], sources: tuple[str, ...], prompt: str) -> list:
    return [(task, _of(name, rows, prompt, "v2"), sources), (task, _of(name, rows, None, "v1"), sources)]


ASR = "Detect the language and recognize the speech: <|{}|>"
_LIBRISPEECH = ("librispeech_dev_clean", "librispeech_dev_other", "librispeech_test_clean", "librispeech_test_other")
_AISHELL2 = [f"aishell2_{channel}_{split}" for channel in ("Mic", "iOS", "android") for split in ("dev", "test")]
_COVOST = [("en", "zh"), ("en", "de"), ("de", "en"), ("es", "en"), ("fr", "en"), ("it", "en"), ("zh", "en")]
_COVOST_SOURCES = [f"covost_{s}_{t}_{split}" for s, t in _COVOST for split in ("dev", "test")]
_librispeech = [row for source in _LIBRISPEECH for row in librispeech_rows(source)]
_aishell2 = [row for source in _AISHELL2 for row in aishell2_rows(source)]
_covost = [row for source in _COVOST_SOURCES for row in covost_rows(source)]
_meld = [row for source in ("meld_test", "meld_dev") for row in meld_rows(source)]
_vocalsound = [row for source in ("vocalsound_test", "vocalsound_val") for row in vocalsound_rows(source)]

FORMS: list = [
    form
    for forms in (
        *(
            _both(s.replace("_", "-"), "librispeech_eval", _librispeech, (s,), ASR.format("en")) for s in _LIBRISPEECH
        ),
        *(
            _both(f"aishell2-{c}{suffix}", "aishell2_eval", _aishell2, (s,), ASR.format("zh"))
            for c, suffix, s in (
                ("mic", "", "aishell2_Mic_test"), ("ios", "", "aishell2_iOS_test"),
                ("android", "", "aishell2_android_test"),
                ("mic", "-dev", "aishell2_Mic_dev"),
            )
        ),
        *(
            _both(f"cv15-{c}", f"cv15_asr_{c}_eval", voice_rows(c, f"cv15_{c}"), (f"cv15_{c}",), ASR.format(c))
            for c in ("en", "zh", "yue", "fr")
        ),
        _both("fleurs-zh", "fleurs_asr_zh_eval", fleurs_rows("fleurs_zh"), ("fleurs_zh",), ASR.format("zh")),
        *(
            _both(
                f"covost2-{s}-{t}", "covost2_eval", _covost, (f"covost_{s}_{t}_dev", f"covost_{s}_{t}_test"),
                "Translate:",
            )
            for s, t in _COVOST
        ),
        _both("meld", "meld_eval", _meld, ("meld_test", "meld_dev"), "Recognize the emotion with keywords in English:"),
        _both("vocalsound", "vocalsound_eval", _vocalsound, ("vocalsound_test", "vocalsound_val"), "Classify:"),
        [("airbench-chat", chat, ("chat",))],
    )
    for form in forms
]  # fmt: skip
