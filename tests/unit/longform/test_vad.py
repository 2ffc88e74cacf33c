"""Speech probabilities: Silero's own ONNX file is the oracle."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from qwen2_audio.longform import vad


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    """Something loud and quiet by turns, between a buzz and noise, so that the probabilities move."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * 16_000)) / 16_000
    buzz = np.sign(np.sin(2 * np.pi * (120 + 30 * np.sin(2 * np.pi * 3 * time)) * time))
    loud = (np.sin(2 * np.pi * 0.7 * time) > 0) * (0.4 + 0.3 * np.sin(2 * np.pi * 5 * time))
    return (0.3 * loud * np.convolve(buzz, np.ones(12) / 12, "same") + 0.01 * random.normal(size=len(time))).astype(
        np.float32
    )


def probabilities(samples, *cuts):
    detector = vad.speech_detector()
    assert detector is not None
    blocks = [detector.push(block) for block in np.split(samples, cuts)]
    return np.concatenate([*blocks, detector.finish()])


def by_onnx(samples):
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = importlib.util.find_spec("silero_vad").submodule_search_locations[0]
    session = onnxruntime.InferenceSession(str(Path(folder) / "data" / "silero_vad.onnx"))
    state, context, out = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32), []
    padded = np.pad(samples, (0, -len(samples) % 512))
    for frame in padded.reshape(-1, 512):
        x = np.concatenate([context, frame])[None]
        probability, state = session.run(None, {"input": x, "state": state, "sr": np.array(16_000, np.int64)})
        context = frame[-64:]
        out.append(probability[0, 0])
    return np.array(out, np.float32)


def test_the_onnx_files_numbers():
    from qwen2_audio import nano_path
    from qwen2_audio.audio.io import load

    clips = [load(path) for path in sorted((nano_path() / "clips").glob("*.wav"))]
    samples = np.concatenate([sound(3.01), *clips])[: 70 * 16_000 + 100]
    samples = np.tile(samples, 1 + vad._AT_ONCE * vad.FRAME // len(samples))  # more frames than are computed at once
    ours = probabilities(samples)
    assert ours.max() > 0.9 and ours.min() < 0.01  # there is speech in the clips, and silence
    np.testing.assert_allclose(ours, by_onnx(samples), rtol=0, atol=1e-5)


@pytest.mark.parametrize("cuts", [(1,), (511, 512, 513), tuple(range(0, 40_000, 700)), (0, 32_000)])
def test_blocks_change_nothing(cuts):
    samples = sound(2.6)
    np.testing.assert_allclose(probabilities(samples, *cuts), probabilities(samples), rtol=0, atol=1e-6)


def test_the_last_frame_is_filled_with_silence():
    assert len(probabilities(sound(512 / 16_000))) == 1
    assert len(probabilities(sound(513 / 16_000))) == 2
    assert len(probabilities(np.zeros(0, np.float32))) == 0


def test_torch_keeps_its_threads_and_the_package_is_not_imported():
    code = (
        "import sys, torch, numpy as np; torch.set_num_threads(2); from qwen2_audio.longform import vad;"
        "vad.speech_detector().push(np.zeros(16000, np.float32));"
        "print(torch.get_num_threads(), 'silero_vad' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["2", "False"]


@pytest.fixture
def fresh():
    vad._load.cache_clear()
    yield
    vad._load.cache_clear()


def test_without_the_package(monkeypatch, fresh):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert vad.speech_detector() is None
    assert vad.missing_reason() == (
        "The package silero-vad is not installed, so windows are cut where the sound is quietest, and silence is not "
        "told from speech."
    )


@pytest.mark.parametrize("change", ["no file", "no archive", "other weights"])
def test_another_network(change, monkeypatch, fresh, tmp_path):
    class Spec:
        submodule_search_locations = (str(tmp_path),)

    path = tmp_path / "data" / "silero_vad.jit"
    path.parent.mkdir()
    if change == "no archive":
        path.write_bytes(b"nothing")
    if change == "other weights":
        import warnings

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: Spec())
    assert vad.speech_detector() is None
    assert f"{path} is not Silero's network as this version knows it" in vad.missing_reason()


def test_there_is_a_reason_only_without():
    assert vad.missing_reason() is None
