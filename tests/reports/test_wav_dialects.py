"""Every WAV dialect gives librosa's samples or is refused: RIFX was decoded as noise of full scale."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from qwen2_audio.audio import load
from qwen2_audio.errors import AudioError
from qwen2_audio.inputs.clip import load_clip
from qwen2_audio.train.clips import read_clip

librosa = pytest.importorskip("librosa")
sf = pytest.importorskip("soundfile")

FORMS = sorted(
    (container, subtype, endian)
    for container in ("WAV", "WAVEX", "RF64", "W64")
    for subtype in sf.available_subtypes(container)
    for endian in ("LITTLE", "BIG")
    if subtype != "MPEG_LAYER_III" and sf.check_format(container, subtype, endian)
)
NOISE = {"G721_32", "NMS_ADPCM_16", "NMS_ADPCM_24", "NMS_ADPCM_32"}  # that is what FFmpeg makes of them
COMPRESSED = {"IMA_ADPCM", "MS_ADPCM", "GSM610"}


def is_refused(container: str, subtype: str, endian: str) -> bool:
    rare = endian == "BIG" or (container == "W64" and subtype == "MS_ADPCM")
    return subtype in NOISE or (subtype in COMPRESSED and rare)


def sound(channels: int) -> np.ndarray:
    tone = 0.3 * np.sin(np.arange(9000) * 0.17) + 0.05 * np.random.default_rng(0).normal(size=9000)
    return np.stack([tone * 0.5**channel for channel in range(channels)], axis=1)


def expected(path: Path) -> np.ndarray:
    with sf.SoundFile(path) as file:  # librosa's own reader, which also reads what cannot seek (GSM)
        return file.read(frames=20_000, dtype="float32", always_2d=True).mean(axis=1)


@pytest.mark.parametrize(("container", "subtype", "endian"), FORMS)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_dialect_gives_librosas_samples_or_is_refused(
    tmp_path: Path, container: str, subtype: str, endian: str, channels: int
) -> None:
    path = tmp_path / "a.wav"
    try:
        sf.write(path, sound(channels), 16000, format=container, subtype=subtype, endian=endian)
    except sf.LibsndfileError:
        pytest.skip("libsndfile does not write it")
    if is_refused(container, subtype, endian):
        with pytest.raises(AudioError, match="convert it to WAV"):
            load(path)
    else:  # 9000: libsndfile gives more of GSM than was written
        np.testing.assert_allclose(load(path)[:9000], expected(path)[:9000], rtol=0, atol=1e-6)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW"])
def test_big_endian_is_heard_at_every_rate_and_in_training(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "a.wav"
    sf.write(path, sound(2), 44100, subtype=subtype, endian="BIG")
    reference = librosa.load(path, sr=16000)[0]
    for samples in (load(path), load(path.read_bytes()), load_clip(path).waveform, read_clip(path, 1).waveform):
        np.testing.assert_allclose(samples, reference, rtol=0, atol=1e-6)


def extensible(samples: bytes, bits: int, valid_bits: int) -> bytes:
    guid = bytes.fromhex("0100000000001000800000aa00389b71")
    form = struct.pack("<HHIIHHHHI", 0xFFFE, 1, 16000, 16000 * bits // 8, bits // 8, bits, 22, valid_bits, 4) + guid
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("valid_bits", [16, 20, 24, 32])
def test_the_place_of_a_sample_counts_not_its_valid_bits(tmp_path: Path, valid_bits: int) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(extensible((sound(1)[:, 0] * 2**31).astype("<i4").tobytes(), 32, valid_bits))
    np.testing.assert_array_equal(load(path), librosa.load(path, sr=16000)[0])


def test_24_bits_beside_a_byte_of_padding_are_refused_as_librosa_makes_noise_of_them() -> None:
    form = struct.pack("<HHIIHH", 1, 1, 16000, 64000, 4, 24)
    data = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", 4000) + bytes(4000)
    with pytest.raises(AudioError, match="24-bit samples in 4 bytes"):
        load(b"RIFF" + struct.pack("<I", len(data)) + data)


def test_half_a_big_endian_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    sf.write(path, sound(1), 16000, subtype="PCM_16", endian="BIG")
    data = path.read_bytes()
    with pytest.warns(UserWarning, match="is cut off"):
        assert len(load(data[: len(data) // 2])) == pytest.approx(4500, abs=50)
    with pytest.raises(AudioError, match="MS ADPCM whose header is damaged"):
        load(data.replace(b"RIFX", b"RIFF")[:16] + struct.pack("<IHHIIHH", 16, 2, 1, 16000, 8000, 256, 4) + data[36:])
