"""Benchmarks that users quote for the Instruct checkpoint (EVAL C2 to C4, D).

Greedy runs inherit the repetition penalty 1.1 of the checkpoint's generation_config, as their authors' do; VoiceBench
and OpenAudioBench draw by that file, as theirs do, with a seed.
"""

from __future__ import annotations

from ...types import SamplingParams
from ..task import DeafCheck, Golden, Task
from .goldens import by_source, figures, rates

GREEDY = SamplingParams(temperature=0, max_tokens=256, min_tokens=1, repetition_penalty=1.1)
VOICEBENCH_SAMPLING = SamplingParams(max_tokens=2048, seed=0)  # theirs is max_length=2048, prompt included
OPENAUDIOBENCH_SAMPLING = SamplingParams(max_tokens=256, seed=0)
HEARS = DeafCheck()
SD_QA_REGIONS = ("aus", "gbr", "ind_n", "ind_s", "irl", "kenya", "nga", "nzl", "phl", "usa", "zaf")

# AIR-Bench foundation's folders, their spelling included, with their rows.
FOUNDATION: tuple[tuple[str, int], ...] = (
    ("Speaker_Age_Prediction_common_voice_13.0_en", 1000),
    ("Speaker_Emotion_Recontion_iemocap", 1000),
    ("Speaker_Emotion_Recontion_meld", 1000),
    ("Speaker_Gender_Recognition_common_voice_13_en", 780),
    ("Speaker_Gender_Recognition_meld", 1000),
    ("Speaker_Intent_Classification_slurp", 662),
    ("Speaker_Number_Verification_voxceleb1", 314),
    ("Speech_Entity_Reconition_slurp", 1000),
    ("Speech_Grounding_librispeech", 981),
    ("Spoken_Language_Identification_covost2", 495),
    ("Synthesized_Voice_Detection_fake_or_real", 1000),
    ("Acoustic_Scene_Classification_CochlScene", 1000),
    ("Acoustic_Scene_Classification_TUT2017", 1000),
    ("Audio_Grounding_AudioGrounding", 896),
    ("Sound_AQA_avqa", 1000),
    ("Sound_AQA_clothoaqa", 1000),
    ("vocal_sound_classification_VocalSound", 985),
    ("Music_AQA_music_avqa", 814),
    ("Music_Genre_Recognition_MTJ-Jamendo", 1000),
    ("Music_Genre_Recognition_fma", 1000),
    ("Music_Instruments_Classfication_MTJ-Jamendo", 1000),
    ("Music_Instruments_Classfication_nsynth", 996),
    ("Music_Midi_Pitch_Analysis_nsynth", 493),
    ("Music_Midi_Velocity_Analysis_nsynth", 484),
    ("Music_Mood_Recognition_MTJ-Jamendo", 526),
)


def _mmau(name: str, title: str, rows: int, where: str, goldens: tuple[Golden, ...] = ()) -> Task:
    return Task(
        name, title, "instruct", ("mmau", "parquet"), ((name, rows),), "mmau_authors", "string_match",
        decoding=GREEDY, group="audio", goldens=goldens, licence="Apache-2.0; answers of the test split withheld",
        where=where,
    )  # fmt: skip


def _voicebench(
    name: str, subset: str, sources: tuple[tuple[str, int], ...], scorer: str, goldens: tuple[Golden, ...],
    deaf: DeafCheck | None = HEARS,
) -> Task:  # fmt: skip
    return Task(
        f"voicebench-{name}", f"VoiceBench {subset}", "instruct", ("voicebench", "parquet"), sources, None,
        f"voicebench_{scorer}", decoding=VOICEBENCH_SAMPLING, goldens=goldens, deaf=deaf, licence="Apache-2.0",
        where=f"hlt-lab/voicebench on Hugging Face, subset {subset}.",
    )  # fmt: skip


def _openaudiobench(name: str, subset: str, rows: int, goldens: tuple[Golden, ...]) -> Task:
    return Task(
        f"openaudiobench-{name}", f"OpenAudioBench {subset}", "instruct", ("openaudiobench", "parquet"),
        ((subset, rows),), None, f"openaudiobench_{subset}", decoding=OPENAUDIOBENCH_SAMPLING, goldens=goldens,
        licence="see the data set's card",
        where=f"baichuan-inc/OpenAudioBench on Hugging Face, eval_datas/{subset}.",
    )  # fmt: skip


INSTRUCT: tuple[Task, ...] = (
    Task(
        "airbench-foundation", "AIR-Bench foundation", "instruct", ("airbench_foundation", "parquet"), FOUNDATION,
        "airbench_foundation", "airbench_foundation", decoding=GREEDY, group="audio",
        goldens=by_source("accuracy_official", "lmms-eval", speech=62.89, sound=55.42, music=56.77),
        licence="CC BY-NC 4.0", where="qyang1021/AIR-Bench-Dataset on Hugging Face, folder Foundation.",
    ),
    _mmau(
        "mmau-mini", "MMAU test-mini v05.15.25", 1000,
        "Sakshi113/MMAU: mmau-test-mini.json of 2025-05-18 or later and its audio; gamma-lab-umd/MMAU-test-mini.",
        (
            *rates("accuracy_string_match", 3.1, leaderboard=47.20),
            *by_source("accuracy_string_match", "leaderboard", 5.4, sound=50.75, music=49.70, speech=41.14),
            *rates("accuracy_parsed", 3.1, leaderboard=59.60),
            *by_source("accuracy_parsed", "leaderboard", 5.4, sound=67.27, music=56.29, speech=55.26),
        ),
    ),
    _mmau(
        "mmau-mini-v1", "MMAU test-mini v1", 1000,
        "Sakshi113/MMAU: mmau-test-mini.json of 2024-10 to 2025-03, and its audio.",
        (
            *rates("accuracy_string_match", 3.1, leaderboard=49.20),
            *by_source("accuracy_string_match", "leaderboard", 5.4, sound=54.95, music=50.98, speech=42.04),
        ),
    ),
    _mmau("mmau-test", "MMAU test, to hand in", 9000, "Sakshi113/MMAU; the answers are scored by sonalkum/MMAU-Eval."),
    Task(
        "mmar", "MMAR", "instruct", ("mmar", "parquet"), (("mmar", 1000),), "mmar", "string_match", decoding=GREEDY,
        group="audio",
        goldens=(
            *rates("accuracy_string_match", 2.8, readme=30.0),
            *by_source("accuracy_string_match", "README", sound=33.3, music=24.3, speech=32.3),
        ),
        licence="CC BY-NC 4.0", where="BoJack/MMAR on Hugging Face: MMAR-meta.json and mmar-audio.tar.gz.",
    ),
    Task(
        "mmsu", "MMSU", "instruct", ("mmsu", "parquet"), (("mmsu", 5000),), "mmsu", "mmsu",
        decoding=GREEDY, group="audio",
        goldens=(
            *rates("accuracy_official", 1.4, readme=53.27),
            *by_source("accuracy_official", "README", Perception=39.02, Reasoning=68.90),
        ),
        licence="see the data set's card", where="ddwang2000/MMSU on Hugging Face.",
    ),
    _voicebench("alpaca", "alpacaeval_full", (("alpacaeval_full", 636),), "open", figures("score", leaderboard=3.74)),
    _voicebench("common", "commoneval", (("commoneval", 200),), "open", figures("score", leaderboard=3.43, kimi=3.40)),
    _voicebench("wild", "wildvoice", (("wildvoice", 1000),), "open", figures("score", leaderboard=3.01)),
    _voicebench(
        "sdqa", "sd-qa", tuple((f"sd-qa_{region}", 553) for region in SD_QA_REGIONS), "qa",
        # The leaderboard's 35.71 is a mean with PEDANT, which only its version 0.2.17 gives: nothing to compare with.
        rates("accuracy_judge", 4.0, source="sd-qa_usa", kimi=35.35),
    ),
    _voicebench(
        "obqa", "openbookqa", (("openbookqa", 455),), "mcq", rates("accuracy_with_random", 4.6, leaderboard=49.45),
    ),
    _voicebench("mmsu", "mmsu", (("mmsu", 3074),), "mcq", rates("accuracy_with_random", 1.7, leaderboard=35.72)),
    _voicebench("bbh", "bbh", (("bbh", 1000),), "bbh", rates("accuracy_with_random", 3.1, leaderboard=54.70)),
    _voicebench("ifeval", "ifeval", (("ifeval", 345),), "ifeval", rates("final", 4.6, leaderboard=26.33, kimi=22.57)),
    _voicebench(
        "advbench", "advbench", (("advbench", 520),), "harm", rates("refusal_rate", leaderboard=96.73, kimi=98.85),
        deaf=None,  # to refuse is right whatever the clip says
    ),
    _openaudiobench("alpaca", "alpaca_eval", 199, figures("score", kimi=57.19)),
    _openaudiobench("llama", "llama_questions", 300, rates("accuracy_judge", kimi=69.67)),
    _openaudiobench("reasoning", "reasoning_qa", 202, figures("score", kimi=42.77)),
    _openaudiobench("trivia", "trivia_qa", 1000, rates("accuracy_judge", kimi=40.30)),
    _openaudiobench("web", "web_questions", 1000, rates("accuracy_judge", kimi=45.20)),
)  # fmt: skip
