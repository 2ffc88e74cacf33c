"""The audio requests that vLLM's documentation publishes, as they are: by the client, by curl, by a bare HTTP client.

Their bodies are data here: the shapes of `openai_chat_completion_client_for_multimodal.py` (text only, audio, several
audios), of the multimodal page (uuid, short form), of the transcription client, and of the extra parameters' page.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess

import httpx2 as httpx
import pytest

from kit.clip_files import encoded, wav_bytes

QUESTION = {"type": "text", "text": "What's in this audio?"}


@pytest.fixture(scope="module")
def model(client):
    return client.models.list().data[0].id


@pytest.fixture(scope="module")
def sound() -> str:
    return base64.b64encode(wav_bytes()).decode()


def contents(sound: str, file: str):
    yield [QUESTION, {"type": "input_audio", "input_audio": {"data": sound, "format": "wav"}}], 1
    yield [QUESTION, {"type": "audio_url", "audio_url": {"url": file}}], 1
    yield [QUESTION, {"type": "audio_url", "audio_url": {"url": f"data:audio/ogg;base64,{sound}"}}], 1  # it is a wav
    yield [{"type": "audio_url", "audio_url": {"url": f"data:audio/ogg;base64,{sound}"}}] * 2 + [QUESTION], 2
    yield [QUESTION, {"type": "audio_url", "audio_url": {"url": file}, "uuid": "audio-1"}], 1
    yield [QUESTION, {"audio_url": file}], 1


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("stream", [False, True])
def test_chat_with_audio(client, model, sound, folder, number, stream):
    content, clips = list(contents(sound, f"file://{folder}/dog.wav"))[number]
    options = dict(messages=[{"role": "user", "content": content}], model=model, max_completion_tokens=64)
    if stream:
        *chunks, last = client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True})
        text, usage = "".join(chunk.choices[0].delta.content or "" for chunk in chunks), last.usage
    else:
        answer = client.chat.completions.create(**options)
        text, usage = answer.choices[0].message.content, answer.usage
    assert text == "I heard " + " and ".join(["1 s"] * clips)
    assert usage.prompt_tokens_details.audio_tokens == 25 * clips


def test_text_only_and_extra_parameters(client, model, backend):
    messages = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "say Paris"}]
    answer = client.chat.completions.create(
        messages=messages, model=model, max_completion_tokens=64, temperature=0.0, logprobs=True, top_logprobs=5,
        extra_body={"top_k": 20, "min_p": 0.0, "repetition_penalty": 1.05, "stop_token_ids": [], "ignore_eos": False,
                    "skip_special_tokens": True, "add_generation_prompt": True, "min_tokens": 0},
    )  # fmt: skip
    assert answer.choices[0].message.content == "Paris"
    assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 5
    assert (backend.seen[-1][1].top_k, backend.seen[-1][1].repetition_penalty) == (20, 1.05)


def test_transcription_client(client, model, backend):
    transcript = client.audio.transcriptions.create(
        file=("mary_had_lamb.ogg", encoded("ogg", "libopus", rate=48_000)), model=model, language="en",
        response_format="json", temperature=0.0, extra_body=dict(seed=4419, repetition_penalty=1.3),
    )  # fmt: skip
    assert transcript.text.startswith("I heard 1")
    assert (backend.seen[-1][1].seed, backend.seen[-1][1].repetition_penalty) == (4419, 1.3)


def test_a_bare_client_streams_a_transcript(client, server, model):
    """Events are OpenAI's, not vLLM's own."""
    with httpx.stream(
        "POST", f"{server.url}/v1/audio/transcriptions", headers={"Authorization": f"Bearer {client.api_key}"},
        data={"model": model, "language": "en", "stream": "true", "response_format": "json"},
        files={"file": ("a.wav", wav_bytes())}, timeout=20,
    ) as answer:  # fmt: skip
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert events[-1]["type"] == "transcript.text.done" and events[-1]["text"] == "I heard 1 s"


def test_curl(client, server, model, sound, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("curl is not here")
    body = {"model": model, "messages": [{"role": "user", "content": next(contents(sound, ""))[0]}]}
    (tmp_path / "body.json").write_text(json.dumps(body))
    (tmp_path / "a.wav").write_bytes(wav_bytes())
    key = ["-H", f"Authorization: Bearer {client.api_key}"]

    def curl(*arguments):
        done = subprocess.run(["curl", "-sS", "--fail", *key, *arguments], capture_output=True, timeout=20, check=True)
        return json.loads(done.stdout)

    chat = curl(
        f"{server.url}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", f"@{tmp_path / 'body.json'}"
    )
    assert chat["choices"][0]["message"]["content"] == "I heard 1 s"
    form = ["-F", f"file=@{tmp_path / 'a.wav'}", "-F", f"model={model}", "-F", "language=en"]
    assert curl(f"{server.url}/v1/audio/transcriptions", *form)["text"] == "I heard 1 s"
