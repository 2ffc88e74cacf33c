"""The empty page: what the checkpoint can do, in the server's words, and clips to try; in a real Chromium."""

from __future__ import annotations

import json

import pytest

from kit.clip_files import encoded, wav_bytes
from kit.page import answer, serving
from kit.page_backend import ANSWER, PageBackend, clips_of, text_of
from qwen2_audio.checkpoint.locate import nano_path
from qwen2_audio.serve.app import STATIC
from qwen2_audio.serve.capabilities import read_capabilities

pytest_plugins = ("kit.page_browser",)
WORDS = {
    "summary": "A checkpoint of bells.",
    "abilities": [{"title": "Counts", "text": "How often a bell rings."}, {"title": "Tunes", "text": "Its pitch."}],
    "limits": "It knows nothing else.",
    "samples": [
        {"title": "A bell", "question": "How often?", "clip": "bell.wav"},
        {"title": "A call", "question": "", "clip": "call.wv"},
    ],
}


@pytest.fixture
def backend() -> PageBackend:
    return PageBackend()


@pytest.fixture
def words(tmp_path):
    (tmp_path / "bell.wav").write_bytes(wav_bytes(1.5))
    (tmp_path / "call.wv").write_bytes(encoded("wv", "wavpack", 1.0))
    (tmp_path / "capabilities.json").write_text(json.dumps(WORDS))
    return read_capabilities(tmp_path)


@pytest.fixture
def welcome(opened, backend, words):
    with serving(backend, words=words) as url:
        page = opened(url)
        page.wait_for_selector("#samples li:nth-child(2)")
        yield page
        page.context.close()


def test_it_says_what_answers_and_what_that_can_do_in_its_own_words(welcome):
    assert welcome.inner_text("#serving").strip() == "listener"
    assert welcome.inner_text("#summary") == WORDS["summary"]
    assert welcome.locator("#abilities dt").all_inner_texts() == ["Counts", "Tunes"]
    assert welcome.locator("#abilities dd").all_inner_texts() == ["How often a bell rings.", "Its pitch."]
    assert welcome.inner_text("#limits") == WORDS["limits"]
    assert welcome.locator("#samples .name").all_inner_texts() == ["A bell", "A call"]


def test_a_sample_is_asked_about_by_one_click(welcome, backend):
    welcome.click("#samples >> text=How often?")
    assert answer(welcome) == ANSWER
    message = backend.seen[0][0][-1]
    assert clips_of([message]) == [1.5] and text_of(message) == "How often?"
    assert welcome.is_hidden("#empty") and welcome.inner_text("article.asked .name") == "A bell"


def test_a_sample_whose_question_is_spoken_goes_alone_even_if_the_browser_cannot_decode_it(welcome, backend):
    welcome.click("#samples >> text=Let it answer")
    assert answer(welcome) == ANSWER
    message = backend.seen[0][0][-1]
    assert [part["type"] for part in message["content"]] == ["audio"]


def test_a_sample_can_be_heard_first(welcome, backend):
    welcome.click("#samples [aria-label='Play A bell']")
    welcome.wait_for_selector("#samples [aria-label='Stop A bell']")
    welcome.wait_for_selector("#samples [aria-label='Play A bell']")
    assert backend.seen == []


def test_a_sample_asked_twice_is_two_clips(welcome, backend):
    backend.notes = ("A note on the first.",)
    welcome.click("#samples >> text=How often?")
    answer(welcome)
    assert welcome.locator("article.asked .notes li").count() == 1
    welcome.click("#new")
    backend.delay = 1.0
    welcome.click("#samples >> text=How often?")
    welcome.wait_for_selector("[data-state=waiting]")
    assert welcome.locator("article.asked .notes li").count() == 0, "of the second nothing is known yet"


def test_without_a_file_of_its_own_a_checkpoint_has_its_kinds_words(page):
    page.wait_for_selector("#samples li")
    assert "A Qwen2-Audio checkpoint" in page.inner_text("#summary")
    assert "depends on its training" in page.inner_text("#limits")


def test_samples_that_do_not_come_are_left_out_and_the_words_stay(opened, backend, words):
    with serving(backend, words=words) as url:
        page = opened(url)
        page.route("**/samples/1", lambda route: route.abort())
        page.reload()
        page.wait_for_selector("#samples li")
        assert page.locator("#samples .name").all_inner_texts() == ["A bell"]
        page.context.close()


def test_the_words_are_nowhere_in_the_page():
    page = "".join(path.read_text(encoding="utf-8").lower() for path in STATIC.iterdir())
    nano = read_capabilities(nano_path()).words
    said = [nano.summary, nano.limits, *(ability.title for ability in nano.abilities)]
    assert [words for words in said if words.lower() in page] == []


def test_nano_does_what_its_page_says(opened):
    from qwen2_audio import load
    from qwen2_audio.api.service import Service

    model = load()
    service = Service(model.model, model.processor, name="nano", about=model.about)
    expected = ["a dog", "glass", "Paris", "a piano", "Seven plus five is twelve", "a man"]
    with serving(service, words=read_capabilities(nano_path())) as url:
        page = opened(url)
        page.wait_for_selector(f"#samples li:nth-child({len(expected)})")
        said = []
        for number in range(1, len(expected) + 1):
            page.click(f"#samples li:nth-child({number}) .plain")
            said.append(answer(page))
            page.click("#new")
        assert [word in text for word, text in zip(expected, said, strict=True)] == [True] * len(expected), said
        page.context.close()
