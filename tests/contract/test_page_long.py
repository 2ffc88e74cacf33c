"""A long file on the page: a timeline that grows, to play from, to search, to save; in a real Chromium."""

from __future__ import annotations

import io

import numpy as np
import pytest
import srt
import webvtt

from kit.clip_files import encoded
from kit.page import DONE, answer, ask, wav_of
from kit.page_backend import ANSWER, PageBackend, text_of
from qwen2_audio.longform import transcribe as module

pytest_plugins = ("kit.page_browser",)
TEXTS = ["One <b> & two", "Three four", "Five --> six"]
ROWS = "article.answered .segments li"


class Numbered(PageBackend):
    """Each window has a text of its own."""

    def _words(self, messages, text):
        first = messages[0]["content"][0]
        if isinstance(first, dict) and isinstance(first.get("audio"), tuple):
            number = round(float(first["audio"][0].max()) * 10) - 1  # each window is a level
            yield from (f"{word} " for word in TEXTS[number].split(" "))
        else:
            yield from super()._words(messages, text)


@pytest.fixture
def backend() -> Numbered:
    return Numbered()


@pytest.fixture(autouse=True)
def _everything(monkeypatch):
    monkeypatch.setattr(module, "speech_detector", lambda: None)


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    """90 s, of which each 30 have a level of their own, and end with a pause."""
    levels = np.repeat([0.1, 0.2, 0.3], 8000 * 30)
    levels.reshape(3, -1)[:, -4000:] = 0
    return wav_of(tmp_path_factory.mktemp("long") / "talk.wav", levels * np.sin(0.3 * np.arange(len(levels))), 8000)


@pytest.fixture
def transcribed(page, talk):
    page.set_input_files("#files", talk)
    page.click("#attachments >> text=Transcribe")
    page.wait_for_selector(DONE)
    return page


def test_a_long_file_is_a_timeline(transcribed, talk, backend):
    page = transcribed
    assert [text.split("\n", 1)[1] for text in page.locator(ROWS).all_inner_texts()] == TEXTS
    assert [text[:4] for text in page.locator(ROWS).all_inner_texts()] == ["0:00", "0:29", "0:59"]
    assert page.locator(".strip i").count() == 3
    lefts = page.evaluate(
        "[...document.querySelectorAll('.strip i')].map((i) => i.offsetLeft / i.parentNode.clientWidth)"
    )
    assert lefts == pytest.approx([0, 1 / 3, 2 / 3], abs=0.015)
    assert page.inner_text("article.asked figcaption .measure") == "1 min 30 s"

    page.fill("[aria-label='Search the transcript']", "FOUR")
    assert page.locator(ROWS).locator("visible=true").count() == 1
    page.fill("[aria-label='Search the transcript']", "")

    page.click(f"{ROWS}:nth-child(2) button")
    page.wait_for_selector(f"{ROWS}:nth-child(2)[aria-current]")
    page.click("article.answered [aria-label=Stop]")
    assert page.locator("[aria-current=true].segments").count() == 0 and page.is_hidden(".strip b")

    saved = {}
    for kind in ("SRT", "VTT", "TXT"):
        with page.expect_download() as download:
            page.click(f"article.answered .tools >> text={kind}")
        assert download.value.suggested_filename == f"talk.{kind.lower()}"
        saved[kind] = download.value.path().read_text(encoding="utf-8")
    cues = list(srt.parse(saved["SRT"]))
    assert [cue.content for cue in cues] == [text.replace("-->", "->") for text in TEXTS]
    assert [cue.start.total_seconds() for cue in cues] == pytest.approx([0, 30, 60], abs=0.6)
    assert cues[-1].end.total_seconds() == pytest.approx(90, abs=0.6)
    captions = list(webvtt.from_buffer(io.StringIO(saved["VTT"])))
    assert captions[0].raw_text == "One &lt;b&gt; &amp; two" and captions[2].start.startswith("00:00:59.")
    assert saved["TXT"].splitlines() == TEXTS

    page.reload()
    page.wait_for_selector(f"{ROWS}:nth-child(3)")
    assert page.is_disabled(f"{ROWS}:nth-child(1) button")
    assert "does not keep so long a file" in page.inner_text("article.asked figure")
    ask(page, "What was said?")
    page.wait_for_selector(f"article:nth-of-type(4){DONE[7:]}")
    first = backend.seen[-1][0][0]["content"]
    assert first == "Transcribe the speech.", "the transcript goes with later questions, the sound does not"
    assert backend.seen[-1][0][1]["content"].split() == " ".join(TEXTS).split()


def test_a_question_about_a_long_file_is_asked_of_each_part_if_that_is_wanted(page, talk, backend):
    page.set_input_files("#files", talk)
    page.wait_for_selector("#attachments li")
    ask(page, "What is it?")
    notice = page.wait_for_selector("#notice .trouble").inner_text()
    assert "talk.wav is longer than the 30 s that are heard at once. Transcribe it, or ask about each part" in notice
    assert backend.seen == [] and page.input_value("#text") == "What is it?"
    page.click("#notice >> text=Ask each part")
    assert answer(page) == ANSWER, "made of the notes"
    windows = [messages for messages, _ in backend.seen if messages[0]["content"][0]["type"] == "audio"]
    assert len(windows) == 3 and all("What is it?" in text_of(messages[0]) for messages in windows)
    ask(page, "And then?")
    page.wait_for_selector(f"article:nth-of-type(4){DONE[7:]}")
    assert [message["content"] for message in backend.seen[-1][0]][::2] == ["What is it?", "And then?"]


def test_segments_come_before_the_end_and_what_the_browser_cannot_decode_is_long_too(
    page, tmp_path, backend, monkeypatch
):
    """The server finds out that it is long."""
    monkeypatch.setattr(module, "MAX_PENDING", 1)
    backend.delay = 0.15
    file = tmp_path / "talk.wv"
    file.write_bytes(encoded("wv", "wavpack", 70.0))
    page.set_input_files("#files", file)
    page.click("#attachments >> text=Transcribe")
    page.wait_for_selector(f"{ROWS}:nth-child(1)")
    assert page.locator(DONE).count() == 0
    page.click("#stop")
    assert page.locator(ROWS).count() >= 1, "what had come stays"
