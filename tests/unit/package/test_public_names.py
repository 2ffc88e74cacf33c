import subprocess
import sys

import pytest

import qwen2_audio

# The documented API, the short one, and what goes with them.
EXPECTED = {
    "AutoProcessor", "Qwen2AudioProcessor", "Qwen2AudioConfig", "Qwen2AudioEncoderConfig", "Qwen2Config",
    "Qwen2AudioEncoder",
    "Qwen2AudioModel", "Qwen2AudioForConditionalGeneration", "GenerationConfig", "TextStreamer", "TextIteratorStreamer",
    "load", "nano_path", "user", "system", "assistant", "audio", "AudioChat", "SamplingParams", "Completion", "Chunk",
    "Usage", "Heard", "Qwen2AudioError", "ConfigError", "AudioError", "PromptError", "ContextLengthError",
    "WeightsError", "CapacityError", "run_job", "__version__",
}  # fmt: skip


def test_the_public_names_are_these():
    assert set(qwen2_audio.__all__) == EXPECTED
    assert set(dir(qwen2_audio)) >= EXPECTED


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_name_is_there(name):
    assert getattr(qwen2_audio, name) is not None


def test_the_version_is_that_of_the_package():
    from importlib.metadata import version

    assert qwen2_audio.__version__ == version("qwen2-audio")


def test_the_documented_way_to_a_fresh_model():
    """The reference's own example of a configuration, at other sizes."""
    audio = qwen2_audio.Qwen2AudioEncoderConfig(d_model=16, encoder_layers=1, encoder_attention_heads=2)
    text = qwen2_audio.Qwen2Config(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=16,
    )
    configuration = qwen2_audio.Qwen2AudioConfig(audio, text)
    assert qwen2_audio.Qwen2AudioForConditionalGeneration(configuration).config is configuration


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'qwen2_audio' has no attribute 'transcribe'"):
        _ = qwen2_audio.transcribe


def test_importing_does_no_work():
    heavy = ("torch", "numpy", "av", "soxr", "tokenizers", "jinja2", "huggingface_hub", "safetensors", "typer", "rich")
    code = (
        "import sys, qwen2_audio as qa\nqa.SamplingParams, qa.AudioError, qa.__version__, qa.Qwen2AudioConfig\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_the_front_end_needs_no_torch():
    code = (
        "import sys, qwen2_audio as qa\nassert len(qa.audio.load([0.0] * 400)) == 400\n"
        "qa.user('Hi', audio='a.wav')\nfrom qwen2_audio.inputs.clip import load_clip\nload_clip([0.1] * 4000)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
