"""Speech and label sets as their publishers lay them out: LibriSpeech, AISHELL-2, Common Voice, FLEURS, MELD..."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from kit.corpora_texts import EMOTIONS, TEXTS, VOCAL_SOUNDS
from kit.damaged_clips import write_clip

ROWS = 8


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def librispeech_tree(root: Path, healthy: bool) -> Path:
    folder = root / "LibriSpeech"
    for split in ("dev-clean", "dev-other", "test-clean", "test-other"):
        for speaker in (1272, 1273):
            rows = range(ROWS // 2) if speaker == 1272 else range(ROWS // 2, ROWS)
            chapter = folder / split / str(speaker) / "128104"
            for i in rows:
                write_clip(chapter / f"{speaker}-128104-{i:04d}.flac", i, healthy)
            texts = [f"{speaker}-128104-{i:04d} {TEXTS['EN'][i]}" for i in rows]
            _write(chapter / f"{speaker}-128104.trans.txt", texts)
    return folder


def aishell2_tree(root: Path, healthy: bool) -> Path:
    folder = root / "AISHELL-DEV-TEST-SET"
    for channel in ("Mic", "iOS", "Android"):
        for split in ("dev", "test"):
            names = [(f"D{12 + i // 4:04d}", f"{channel[0].upper()}D{12 + i // 4:04d}W{i:04d}") for i in range(ROWS)]
            part = folder / channel / split
            for i, (speaker, name) in enumerate(names):
                write_clip(part / "wav" / speaker / f"{name}.wav", i, healthy)
            _write(part / "wav.scp", [f"{name}\twav/{speaker}/{name}.wav" for speaker, name in names])
            _write(part / "trans.txt", [f"{name}\t{TEXTS['zh'][i]}" for i, (_, name) in enumerate(names)])
    return folder


VOICE = [
    "client_id", "path", "sentence", "up_votes", "down_votes", "age", "gender", "accents", "variant", "locale",
    "segment",
]  # fmt: skip


def common_voice_tree(root: Path, healthy: bool) -> Path:
    folder = root / "cv-corpus-15.0-2023-09-08"
    for language, locale in (("en", "en"), ("zh", "zh-CN"), ("yue", "yue"), ("fr", "fr")):
        names = [f"common_voice_{locale}_{100 + i}.mp3" for i in range(ROWS)]
        rows = [
            "\t".join([f"client{i // 2}", names[i], TEXTS[language][i], "2", "0", "", "", "", "", locale, ""])
            for i in range(ROWS)
        ]
        for i, name in enumerate(names):
            write_clip(folder / locale / "clips" / name, i, healthy)
        for split in ("test", "dev"):
            _write(folder / locale / f"{split}.tsv", ["\t".join(VOICE), *rows])
    return folder


def fleurs_tree(root: Path, healthy: bool) -> Path:
    folder = root / "fleurs" / "data"
    for language, key in (("cmn_hans_cn", "zh"), ("yue_hant_hk", "yue")):
        rows = []
        for i in range(ROWS):
            write_clip(folder / language / "audio" / "test" / f"{9000 + i}.wav", i, healthy)
            text = TEXTS[key][i]
            rows.append(
                "\t".join([str(1600 + i // 2), f"{9000 + i}.wav", f"{text}。", " ".join(text), "", "8000", "MALE"])
            )
        _write(folder / language / "test.tsv", rows)
    return folder


def covost2_tree(root: Path, healthy: bool) -> Path:
    folder = root / "covost2"
    for spoken, target in (
        ("en", "zh"),
        ("en", "de"),
        ("de", "en"),
        ("fr", "en"),
        ("zh", "en"),
        ("es", "en"),
        ("it", "en"),
    ):
        names = {"zh": "zh-CN"}
        pair = f"{names.get(spoken, spoken)}_{names.get(target, target)}"
        for split in ("dev", "test"):
            rows = ["path\tsentence\ttranslation\tclient_id"]
            for i in range(ROWS):
                name = f"common_voice_{spoken}_{split}_{i}.mp3"
                write_clip(folder / spoken / "clips" / name, i, healthy)
                rows.append(f"{name}\tsaid {i}\t{TEXTS[target][i]}\tclient{i // 2}")
            _write(folder / f"covost_v2.{pair}.{split}.tsv", rows)
    return folder


MELD = [
    "Sr No.", "Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID", "Season", "Episode",
    "StartTime", "EndTime",
]  # fmt: skip


def meld_tree(root: Path, healthy: bool, wav: bool = False) -> Path:
    folder = root / "MELD.Raw"
    for split, clips in (("test", "output_repeated_splits_test"), ("dev", "dev_splits_complete")):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"{split}_sent_emo.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(MELD)
            for i in range(ROWS):
                writer.writerow(
                    [i, f'"Oh, hi," number {i}', "Joey", EMOTIONS[i], "neutral", i // 2, i % 2, 1, 1, "0", "1"]
                )
                name = f"dia{i // 2}_utt{i % 2}"
                write_clip(folder / (f"{clips}_wav/{name}.wav" if wav else f"{clips}/{name}.mp4"), i, healthy)
                (folder / clips).mkdir(exist_ok=True)
                (folder / clips / f"._{name}.mp4").write_bytes(b"\0")
    return folder


def meld_wav_tree(root: Path, healthy: bool) -> Path:
    return meld_tree(root, healthy, wav=True)


_MIDS = {
    "Laughter": "/m/01j3sz", "Sigh": "/m/07plz5l", "Cough": "/m/01b_21", "Throat clearing": "/m/0dl9sf8",
    "Sneeze": "/m/01hsr_", "Sniff": "/m/07ppn3j",
}  # fmt: skip


def vocalsound_tree(root: Path, healthy: bool) -> Path:
    folder = root / "vocalsound"
    for file, first in (("te", 3), ("val", 40), ("tr", 70)):
        rows = []
        for i, kind in enumerate(VOCAL_SOUNDS):
            name = f"f{first + i // 4:04d}_{i}_{kind.lower().replace(' ', '')}.wav"
            write_clip(folder / "audio_16k" / name, i, healthy)
            rows.append({"wav": f"/data/sls/scratch/{name}", "labels": _MIDS[kind]})
        _write(folder / "datafiles" / f"{file}.json", [json.dumps({"data": rows}, indent=1)])
    return folder


_AISHELL2 = [(c, f"-{s}" if s == "dev" else "", f"aishell2_{n}_{s}") for c, n in (
    ("mic", "Mic"), ("ios", "iOS"), ("android", "android")) for s in ("dev", "test")]  # fmt: skip
_COVOST = [("en", "zh"), ("en", "de"), ("de", "en"), ("es", "en"), ("fr", "en"), ("it", "en"), ("zh", "en")]
FORMS: list = [
    *(
        (f"librispeech-{s}", "librispeech", librispeech_tree, (f"librispeech_{s.replace('-', '_')}",))
        for s in ("dev-clean", "dev-other", "test-clean", "test-other")
    ),
    *((f"aishell2-{channel}{suffix}", "aishell2", aishell2_tree, (source,)) for channel, suffix, source in _AISHELL2),
    *(
        (f"cv15-{language}", "common_voice", common_voice_tree, (f"cv15_{language}",))
        for language in ("en", "zh", "yue", "fr")
    ),
    ("fleurs-zh", "fleurs", fleurs_tree, ("fleurs_zh",)),
    *(
        (f"covost2-{s}-{t}", "covost2", covost2_tree, (f"covost_{s}_{t}_dev", f"covost_{s}_{t}_test"))
        for s, t in _COVOST
    ),
    ("meld", "meld", meld_tree, ("meld_test", "meld_dev")),
    ("meld", "meld", meld_wav_tree, ("meld_test", "meld_dev")),
    ("vocalsound", "vocalsound", vocalsound_tree, ("vocalsound_test", "vocalsound_val")),
]
