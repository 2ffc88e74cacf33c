import base64
import json
import os
from pathlib import Path

import pytest
from safetensors.torch import load_file

from qwen2_audio import Qwen2AudioForConditionalGeneration
from qwen2_audio.cli.info_checkpoint import cpu_features
from qwen2_audio.cli.main import main


def test_a_checkpoint_as_json(cli, tiny_checkpoint):
    status, out, _ = cli("info", tiny_checkpoint, "--json")
    facts = json.loads(out)
    assert status == 0
    assert facts["parameters"] == sum(facts["of_which"].values()) == 133_056
    quantised = {"int4": 329_472, "int8": 331_648}
    assert facts["weights_bytes"] == {"float32": 532_224, "bfloat16": 266_112, **quantised}
    assert facts["kv_cache_bytes_per_token"] == {"float32": 2 * 2 * 2 * 8 * 4, "bfloat16": 2 * 2 * 2 * 8 * 2}
    assert facts["bytes_read_per_new_token"]["float32"] == facts["of_which"]["language_model"] * 4
    assert (facts["context"], facts["seconds_of_audio_that_fit"]) == (2048, 81)
    assert facts["stored_as"] == "float32"
    assert "float32 on the CPU" in facts["dtype_auto_here"] or "bfloat16 on cuda" in facts["dtype_auto_here"]
    assert facts["threads"]["torch"] >= 1
    assert isinstance(facts["cpu_features"], list)
    assert isinstance(facts["memory_available_bytes"], int)


def test_a_quantised_checkpoint_takes_what_it_takes(cli, tiny_checkpoint, tmp_path):
    Qwen2AudioForConditionalGeneration.from_pretrained(tiny_checkpoint, quantize="int4").save_pretrained(tmp_path / "q")
    _, out, _ = cli("info", tmp_path / "q", "--json")
    facts = json.loads(out)
    assert facts["stored_as"] == "int4"
    assert facts["weights_bytes"] == {"int4": 329_472}
    assert facts["weights_bytes"]["int4"] == sum(
        tensor.nbytes for tensor in load_file(tmp_path / "q" / "model.safetensors").values()
    )
    assert facts["parameters"] == 133_056
    assert facts["kv_cache_bytes_per_token"] == {"float32": 256, "float16": 128}
    assert "int4 on" in facts["dtype_auto_here"]


def test_without_a_target_it_is_the_model_in_use(cli, tiny_checkpoint):
    status, out, _ = cli("info")
    assert status == 0
    assert f"checkpoint                 {tiny_checkpoint}\n" in out
    assert "parameters                 133,056\n" in out


def test_a_sound_as_json(cli, wav_file, tmp_path):
    wav = wav_file("dog.wav", 1.5, rate=44_100)
    status, out, err = cli("info", wav, "--json")
    assert (status, err) == (0, "")
    facts = json.loads(out)
    assert facts.pop("peak") == pytest.approx(0.3, abs=0.01)
    assert facts == {
        "sound": str(wav),
        "seconds": 1.5,
        "codec": "pcm_s16le",
        "rate": 44_100,
        "channels": 1,
        "mel_frames": 150,
        "audio_tokens": 37,
        "seconds_beyond_the_window": 0.0,
        "spectrogram": "dog.png",
    }
    assert (tmp_path / "dog.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_goes_where_it_is_wanted_or_nowhere(cli, wav_file, tmp_path):
    wav = wav_file("dog.wav")
    _, out, _ = cli("info", wav, "--png", tmp_path / "seen.png")
    assert str(tmp_path / "seen.png") in out
    assert (tmp_path / "seen.png").is_file()
    _, out, _ = cli("info", wav, "--no-png")
    assert "spectrogram                none\n" in out
    assert not (tmp_path / "dog.png").exists()


def test_a_picture_that_is_there_already_is_not_overwritten_unasked(cli, wav_file, tmp_path):
    wav, picture = wav_file("song.wav"), tmp_path / "song.png"
    picture.write_bytes(b"a cover")
    status, out, err = cli("info", wav, "--json")
    assert (status, json.loads(out)["spectrogram"], picture.read_bytes()) == (0, None, b"a cover")
    assert (
        err == "song.png is there already and stays as it is; --png names a file for the picture, this one included.\n"
    )
    cli("info", wav, "--png", "song.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_sound_itself_is_not_overwritten_at_all(cli, wav_file, tmp_path):
    wav = wav_file("a song.wav")
    before = wav.read_bytes()
    (tmp_path / "link.png").symlink_to(wav)
    for target, png in ((wav, wav), ("a song.wav", "./a song.wav"), (wav.as_uri(), wav), (wav, "link.png")):
        status, out, err = cli("info", target, "--png", png)
        assert (status, out) == (2, "")
        assert err == f"qwen2-audio: --png {Path(png)} is the sound itself; name another file for its picture.\n"
    assert wav.read_bytes() == before


def test_a_name_that_is_not_utf8_is_shown_escaped(cli, wav_file, capsys):
    os.rename(wav_file("dog.wav"), b"caf\xe9.wav")
    with pytest.raises(SystemExit) as ended:
        main(["info", "caf\udce9.wav", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert (ended.value.code, facts["sound"], facts["spectrogram"]) == (0, "caf\udce9.wav", "caf\udce9.png")
    assert os.path.exists(b"caf\xe9.png")


def test_a_long_data_uri_is_no_path(cli, wav_file):
    wav = base64.b64encode(wav_file("dog.wav").read_bytes()).decode()
    status, out, _ = cli("info", f"DATA:audio/wav;base64,{wav}", "--png", "seen.png", "--json")
    assert (status, json.loads(out)["spectrogram"]) == (0, "seen.png")


def test_what_lies_beyond_the_window_is_said(cli, wav_file):
    status, out, err = cli("info", wav_file("talk.wav", 65.0), "--json", "--no-png")
    assert status == 0
    facts = json.loads(out)
    assert (facts["seconds"], facts["seconds_beyond_the_window"]) == (65.0, 35.0)
    assert facts["audio_tokens"] == 750
    assert "30 s are heard at a time: split it into 3 clips" in err


def test_a_clip_that_would_not_be_heard_is_called_so(cli, wav_file):
    status, out, err = cli("info", wav_file("click.wav", 0.01), "--json")
    assert status == 0
    assert json.loads(out)["audio_tokens"] == 0
    assert "Too short: it makes 0 audio tokens, and would not be heard." in err


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("nope.wav", "No such file: 'nope.wav'"),
        ("nope.WAV", "No such file: 'nope.WAV'"),
        ("./nope", "No folder './nope' here"),
        (".", "has no config.json; expected the folder of a Qwen2-Audio checkpoint."),
    ],
)
def test_what_is_neither_is_refused(cli, target, sentence):
    status, out, err = cli("info", target)
    assert (status, out) == (2, "")
    assert sentence in err


def test_a_file_that_is_no_sound_is_refused(cli, tmp_path):
    (tmp_path / "notes.txt").write_text("dear diary")
    status, out, err = cli("info", "notes.txt")
    assert (status, out) == (2, "")
    assert "notes.txt" in err


def test_cpu_features(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags\t\t: fpu avx2 avx512f sse\n")
    assert cpu_features(tmp_path / "cpuinfo") == ["avx2", "avx512f"]
    assert cpu_features(tmp_path / "absent") == []
