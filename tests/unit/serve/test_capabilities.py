"""capabilities.json: what a checkpoint may say of itself, and what it must not name."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from kit.clip_files import wav_bytes
from kit.fake_backend import FakeBackend
from qwen2_audio.checkpoint.locate import nano_path
from qwen2_audio.errors import ConfigError
from qwen2_audio.evaluate.nano.sounds.kinds import NAMED
from qwen2_audio.serve.app import create_app
from qwen2_audio.serve.capabilities import read_capabilities
from qwen2_audio.serve.settings import Settings

WORDS = {
    "summary": "A checkpoint of bells.",
    "abilities": [{"title": "Counts", "text": "How often a bell rings."}],
    "limits": "Nothing else.",
    "samples": [{"title": "A bell", "question": "How often?", "clip": "clips/bell.wav"}],
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "bell.wav").write_bytes(wav_bytes())
    return tmp_path


def written(folder, **changes):
    (folder / "capabilities.json").write_text(json.dumps({**WORDS, **changes}))
    return folder


def test_the_models_entry_has_the_words_and_each_sample_its_path(folder):
    client = TestClient(create_app(FakeBackend(), Settings(), read_capabilities(written(folder))))
    (entry,) = client.get("/v1/models").json()["data"]
    sample = {"title": "A bell", "question": "How often?", "url": "samples/0"}
    assert entry["capabilities"] == {**WORDS, "samples": [sample]}
    response = client.get("/samples/0")
    assert response.content == wav_bytes()
    assert response.headers["x-content-type-options"] == "nosniff"
    missing = client.get("/samples/1")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")


def test_samples_need_the_key_as_the_models_do(folder):
    settings = Settings(api_keys=("right",))
    client = TestClient(create_app(FakeBackend(), settings, read_capabilities(written(folder))))
    assert client.get("/samples/0").status_code == 401
    assert client.get("/samples/0", headers={"Authorization": "Bearer right"}).status_code == 200


def test_a_checkpoint_without_the_file_gets_words_for_its_kind():
    chat, base = FakeBackend(), FakeBackend()
    base.is_base = True
    told = [TestClient(create_app(one)).get("/v1/models").json()["data"][0]["capabilities"] for one in (chat, base)]
    assert [len(one["samples"]) > 0 for one in told] == [True, False], "nano's clips, where questions are answered"
    assert "without chat training" in told[1]["summary"]


def test_no_file_is_no_capabilities(tmp_path):
    assert read_capabilities(tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"summary": None}, "summary: Input should be a valid string"),
        ({"colour": "blue"}, "colour: Extra inputs are not permitted"),
        ({"samples": [{"title": "A", "clip": "no.wav"}]}, "names the sample 'no.wav'; expected a file below"),
        ({"samples": [{"title": "A", "clip": "../outside.wav"}]}, "names the sample '../outside.wav'; expected a file"),
        ({"samples": [{"title": "A", "clip": "capabilities.json"}]}, "'capabilities.json', which is no sound file"),
    ],
)
def test_what_it_must_not_say_is_refused_in_a_sentence(folder, changes, sentence):
    (folder.parent / "outside.wav").write_bytes(wav_bytes())
    with pytest.raises(ConfigError) as refused:
        read_capabilities(written(folder, **changes))
    assert sentence in str(refused.value) and str(folder) in str(refused.value)


def test_an_absolute_path_is_refused(folder):
    with pytest.raises(ConfigError, match="expected a file below"):
        read_capabilities(written(folder, samples=[{"title": "A", "clip": str(folder / "clips" / "bell.wav")}]))


def test_the_documented_file_is_read(folder):
    page = (Path(__file__).parents[3] / "docs" / "serving.md").read_text(encoding="utf-8")
    documented = json.loads(re.search(r"^```json\n(.*?)^```", page, re.S | re.M)[1])
    (folder / "clips" / "pump2.wav").write_bytes(wav_bytes())
    read = read_capabilities(written(folder, **documented))
    assert read.to_dict()["samples"] == [{"title": "Pump 2", "question": "What is wrong?", "url": "samples/0"}]
    assert set(documented) == set(read.to_dict())


def test_nano_names_the_sounds_that_it_is_examined_on():
    nano = read_capabilities(nano_path())
    named = next(one.text for one in nano.words.abilities if one.title == f"Names {len(NAMED)} sounds")
    listed = named.rstrip(".").replace(" and ", ", ").lower().split(", ")
    assert sorted(listed) == sorted(NAMED)
