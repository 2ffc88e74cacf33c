"""What programs pass as a sound: datasets' audio column, arrays of another byte order, bare base64."""

from __future__ import annotations

import base64
import io
import json
import textwrap
import wave
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import qwen2_audio as qa
from qwen2_audio.audio import Limits, load
from qwen2_audio.errors import AudioError
from qwen2_audio.inputs.clip import load_clip
from qwen2_audio.inputs.feature_extractor import WhisperFeatureExtractor
from qwen2_audio.text.chat_template import check_messages
from qwen2_audio.train.clips import read_clip
from qwen2_audio.train.formats import ChatRow, read_row

SAMPLES = (np.sin(np.arange(8000) * 0.1) * 9000).astype(np.int16)
WAVE = SAMPLES.astype(np.float32) / 32768


def wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(SAMPLES.astype("<i2").tobytes())
    return file.getvalue()


BASE64 = base64.b64encode(wav()).decode()


@pytest.mark.parametrize(
    "source",
    [
        {"array": WAVE, "sampling_rate": 16000},
        {"array": WAVE.tolist(), "sampling_rate": 16000, "path": None},
        {"path": "a.wav", "array": torch.from_numpy(WAVE), "sampling_rate": 16000},
        {"array": WAVE},
        {"bytes": wav(), "path": "not here.wav"},
        SimpleNamespace(get_all_samples=lambda: SimpleNamespace(data=torch.from_numpy(WAVE)[None], sample_rate=16000)),
        SAMPLES.astype(">i2"),
        SAMPLES.astype(">i4") * 65536,
        WAVE.astype(">f4"),
        WAVE.astype(">f8"),
        (SAMPLES.astype(">i2"), 16000),
        BASE64,
        BASE64.rstrip("="),
        "\n".join(textwrap.wrap(BASE64, 76)),
        base64.urlsafe_b64encode(wav()).decode(),
    ],
    ids=lambda source: type(source).__name__,
)
def test_each_form_gives_the_same_samples(source: Any) -> None:
    np.testing.assert_allclose(load(source), WAVE, atol=1e-7)
    np.testing.assert_allclose(load_clip(check_messages([qa.user("?", audio=source)])[0]).waveform, WAVE, atol=1e-7)
    np.testing.assert_allclose(load_clip(check_messages([qa.user("?", audio=[source])])[0]).waveform, WAVE, atol=1e-7)
    features = WhisperFeatureExtractor()([source])["attention_mask"]
    assert features.sum() == 50


def test_the_rate_of_a_dict_counts(tmp_path: Path) -> None:
    assert len(load({"array": WAVE, "sampling_rate": 8000})) == 16_000
    (tmp_path / "a.wav").write_bytes(wav())
    np.testing.assert_array_equal(load({"path": str(tmp_path / "a.wav"), "bytes": None}), WAVE)
    for wrong in ({"sampling_rate": 16000}, {}, {"array": WAVE, "rate": 16000}):
        with pytest.raises(AudioError, match=r"Found a dict with \[.*\]; expected \{'array', 'sampling_rate'\}"):
            load(wrong)
    with pytest.raises(AudioError, match="give one of them"):
        load({"array": WAVE, "sampling_rate": 8000}, sampling_rate=16000)


def test_a_path_comes_before_base64_and_a_wrong_path_is_still_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "a" * 80
    Path(name).write_bytes(wav())
    np.testing.assert_array_equal(load(name), WAVE)
    for wrong in ("talk", "clips/dog.wav", "x" * 60 + ".flac", "x" * 5000, "b" * 80):
        with pytest.raises(AudioError, match="No such file"):
            load(wrong)
    with pytest.raises(
        AudioError, match=r"The base64 string could not be decoded: it is damaged, cut off, or a WAV file of"
    ):
        load(BASE64[:20] + "A" * 80)
    with pytest.raises(AudioError, match="larger than the limit"):
        load(BASE64, limits=Limits(max_bytes=1000))


def test_a_row_of_training_may_hold_base64(tmp_path: Path) -> None:
    for clip in (BASE64, {"bytes": "\n".join(textwrap.wrap(BASE64, 76))}):
        answer = {"role": "assistant", "content": "A tone."}
        part = {"type": "audio", "audio": clip}
        row = read_row(json.loads(json.dumps({"messages": [{"role": "user", "content": [part]}, answer]})), tmp_path)
        assert isinstance(row, ChatRow)
        np.testing.assert_array_equal(read_clip(row.messages[0]["content"][0]["audio"], 1).waveform, WAVE)
