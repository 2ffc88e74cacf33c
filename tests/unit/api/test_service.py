"""What a checkpoint behind an engine does with requests beside those of others."""

from __future__ import annotations

import threading

import pytest

import qwen2_audio as qa
from qwen2_audio.api.service import Service
from qwen2_audio.engine.settings import EngineSettings
from qwen2_audio.engine.thread import WORKERS

SHORT = qa.SamplingParams(temperature=0, max_tokens=2, min_tokens=2)


@pytest.fixture
def service(tiny_chat):
    running = Service(tiny_chat.model, tiny_chat.processor, EngineSettings(kv_tokens=512))
    yield running
    running.close()


def test_a_text_does_not_wait_for_the_clips_of_others(service, clip, monkeypatch):
    go_on, build = threading.Event(), service.prompt

    def slow(messages, **options):
        if isinstance(messages[0]["content"], list):
            assert go_on.wait(60)
        return build(messages, **options)

    monkeypatch.setattr(service, "prompt", slow)
    held = [service.submit([qa.user("What is it?", audio=clip)], SHORT) for _ in range(WORKERS + 1)]
    (text,) = service.submit([qa.user("a dog")], SHORT, timeout=20).completions()
    (ready,) = service.submit_prompt(build([qa.user("rain", audio=clip)]), SHORT).completions()
    assert text.finish_reason == ready.finish_reason == "length"
    assert not any(handle.done for handle in held)
    go_on.set()
    assert [handle.completions()[0].finish_reason for handle in held] == ["length"] * len(held)
