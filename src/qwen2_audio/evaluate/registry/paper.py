"""The thirteen benchmarks of the paper. All but AIR-Bench are the base checkpoint's, with the official prompts.

`sources` are the names in the official lists; those of Common Voice, FLEURS, MELD and VocalSound were not seen by us,
and the rows' own names win.
"""

from __future__ import annotations

from ...types import SamplingParams
from ..task import Golden, Task
from .goldens import figures, rates

ASR_BATCH = 20
OFFICIAL_LIST = "the official list from the Qwen2-Audio repository's eval_audio/EVALUATION.md"


def _librispeech(part: str, rows: int, goldens: tuple[Golden, ...]) -> Task:
    split, source = part.replace("_", "-"), f"librispeech_{part}"
    return Task(
        f"librispeech-{split}", f"LibriSpeech {split}", "base", ("official_jsonl", "librispeech", "parquet"),
        ((source, rows),), "asr_en", "wer", "en", batch=ASR_BATCH, group="speaker", goldens=goldens,
        licence="CC BY 4.0", where=f"OpenSLR 12, {split}.tar.gz; {OFFICIAL_LIST}.",
    )  # fmt: skip


def _aishell2(device: str, part: str, rows: int, goldens: tuple[Golden, ...] = ()) -> Task:
    name = {"android": "Android", "ios": "iOS", "mic": "Mic"}[device]
    source = f"aishell2_{'android' if device == 'android' else name}_{part}"  # android is small in the lists alone
    return Task(
        f"aishell2-{device}" + ("-dev" if part == "dev" else ""), f"AISHELL-2 {name} {part}", "base",
        ("official_jsonl", "aishell2", "parquet"), ((source, rows),), "asr_zh", "cer", "zh", batch=ASR_BATCH,
        group="speaker", goldens=goldens, licence="academic use only",
        where=f"AISHELL2-2018A-EVAL from AISHELL on request; {OFFICIAL_LIST}.",
    )  # fmt: skip


def _common_voice(language: str, folder: str, rows: int, scorer: str, goldens: tuple[Golden, ...]) -> Task:
    return Task(
        f"cv15-{language}", f"Common Voice 15 {folder}", "base", ("official_jsonl", "common_voice", "parquet"),
        ((f"cv15_{language}", rows),), f"asr_{language}", scorer, language, batch=ASR_BATCH, group="client_id",
        goldens=goldens, licence="CC0",
        where=f"Common Voice 15.0, cv-corpus-15.0-2023-09-08/{folder}, split test; {OFFICIAL_LIST}.",
    )  # fmt: skip


def _covost(source: str, target: str, rows: tuple[int, int], goldens: tuple[Golden, ...]) -> Task:
    dev, test = rows  # a few less than all of CoVoST 2: rows without a clip are not in the official list
    return Task(
        f"covost2-{source}-{target}", f"CoVoST 2 {source} to {target}", "base",
        ("official_jsonl", "covost2", "parquet"),
        ((f"covost_{source}_{target}_dev", dev), (f"covost_{source}_{target}_test", test)), f"st_{source}_{target}",
        "bleu", target, group="client_id", goldens=goldens, licence="CC0",
        where=f"CoVoST 2's tables with Common Voice 4 clips; {OFFICIAL_LIST}.",
    )  # fmt: skip


PAPER: tuple[Task, ...] = (
    _librispeech("dev_clean", 2703, rates("wer", paper=1.3, card=1.7, vast=1.68)),
    _librispeech("dev_other", 2864, rates("wer", 0.24, paper=3.4, card=3.6, vast=3.65)),
    _librispeech("test_clean", 2620, rates("wer", 0.16, paper=1.6, card=1.7, vast=1.70)),
    _librispeech("test_other", 2939, rates("wer", 0.24, paper=3.6, card=4.0, vast=4.03)),
    _aishell2("mic", "test", 5000, rates("cer", 0.22, paper=3.0, card=3.2)),
    _aishell2("ios", "test", 5000, rates("cer", 0.22, paper=3.0, card=3.1)),
    _aishell2("android", "test", 5000, rates("cer", 0.22, paper=2.9, card=2.9)),
    _common_voice("en", "en", 16386, "wer", rates("wer", paper=8.6, card=8.7, vast=8.76)),
    _common_voice("zh", "zh-CN", 10625, "cer", rates("cer", paper=6.9, card=6.5, vast=6.89)),
    _common_voice("yue", "yue", 5593, "cer", rates("cer", paper=5.9, card=5.9, vast=5.87)),
    _common_voice("fr", "fr", 16132, "wer", rates("wer", paper=9.6, card=9.6, vast=9.55)),
    Task(
        "fleurs-zh", "FLEURS Mandarin test", "base", ("official_jsonl", "fleurs", "parquet"), (("fleurs_zh", 945),),
        "asr_zh", "cer", "zh", batch=ASR_BATCH, goldens=rates("cer", paper=7.5, card=7.0, vast=7.01),
        licence="CC BY 4.0", where=f"FLEURS cmn_hans_cn, split test, column raw_transcription; {OFFICIAL_LIST}.",
    ),
    _covost("en", "de", (15380, 15511), figures("bleu", paper=29.9, card=29.6, vast=29.6)),
    _covost("de", "en", (13509, 13508), figures("bleu", paper=35.2, card=33.6, vast=33.6)),
    _covost("en", "zh", (15481, 15511), figures("bleu", paper=45.2, card=45.6, vast=45.5)),
    _covost("zh", "en", (4843, 4898), figures("bleu", paper=24.4, card=24.0, vast=23.9)),
    _covost("es", "en", (13221, 13221), figures("bleu", paper=40.0, card=38.7)),
    _covost("fr", "en", (14750, 14753), figures("bleu", paper=38.5, card=37.2)),
    _covost("it", "en", (8923, 8872), figures("bleu", paper=36.3, card=35.2)),
    Task(
        "meld", "MELD, emotion of speech", "base", ("official_jsonl", "meld", "parquet"),
        (("meld_dev", 1109), ("meld_test", 2610)), "ser", "accuracy", group="dialogue",
        goldens=rates("accuracy_strict", 1.9, paper=55.3, card=53.5) + rates("accuracy_folded", 1.9, vast=54.1),
        licence="GPL-3.0 tables; clips of a television series", where=f"MELD.Raw; {OFFICIAL_LIST}.",
    ),
    Task(
        "vocalsound", "VocalSound, kinds of vocal sound", "base", ("official_jsonl", "vocalsound", "parquet"),
        (("vocalsound_val", 1860), ("vocalsound_test", 3594)), "vsc", "accuracy", group="speaker",
        goldens=rates("accuracy_strict", 0.8, paper=93.92, card=93.95) + rates("accuracy_folded", 0.8, vast=93.29),
        licence="CC BY-SA 4.0", where=f"VocalSound, 16 kHz release; {OFFICIAL_LIST}.",
    ),
    Task(
        "airbench-chat", "AIR-Bench chat", "instruct", ("airbench_chat", "official_jsonl"),
        (
            ("speech_QA", 400), ("speech_dialogue_QA", 400), ("sound_QA", 400), ("sound_generation_QA", 100),
            ("music_QA", 400), ("music_generation_analysis_QA", 100), ("speech_and_sound_QA", 200),
            ("speech_and_music_QA", 200),
        ),
        "question", "airbench_chat", system="You are a helpful assistant.",
        # The official run passes no penalty, and so inherits the 1.1 of the checkpoint's generation_config.
        decoding=SamplingParams(temperature=0, max_tokens=256, min_tokens=1, repetition_penalty=1.1), group="audio",
        goldens=(
            *figures("score", 0.14, source="speech", paper=7.18, card=7.24),
            *figures("score", 0.18, source="sound", paper=6.99, card=6.83),
            *figures("score", 0.18, source="music", paper=6.79, card=6.73),
            *figures("score", 0.20, source="mixed", paper=6.77, card=6.42),
        ),
        licence="CC BY-NC 4.0", where="qyang1021/AIR-Bench-Dataset on Hugging Face, folder Chat.",
    ),
)  # fmt: skip

# Not in the paper's table, of the same official lists.
OFFICIAL_TOO: tuple[Task, ...] = tuple(_aishell2(device, "dev", 2500) for device in ("mic", "ios", "android"))
