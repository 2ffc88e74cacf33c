"""A checkpoint's repetition penalty (Instruct's file says 1.1) does not reach transcripts and translations."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from kit.clip_files import wav_bytes
from kit.fake_backend import FakeBackend
from qwen2_audio.serve.app import create_app


@pytest.mark.parametrize("task", ["transcriptions", "translations"])
@pytest.mark.parametrize(("fields", "penalty"), [({}, 1.0), ({"repetition_penalty": "1.3"}, 1.3)])
def test_it_is_the_request_s_or_one(task, fields, penalty):
    backend = FakeBackend()
    answer = TestClient(create_app(backend)).post(f"/v1/audio/{task}", files={"file": wav_bytes()}, data=fields)
    assert answer.status_code == 200
    assert backend.seen[-1][1].repetition_penalty == penalty
