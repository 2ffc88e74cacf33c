"""Clips on the page: from files, with what was heard of them, transcribed, left out; in a real Chromium."""

from __future__ import annotations

import re
import wave

import pytest

from kit.clip_files import encoded
from kit.page import DONE, answer, ask, numbers
from kit.page_backend import ANSWER, PageBackend, clips_of, wav_files_of
from qwen2_audio.checkpoint.locate import nano_path

pytest_plugins = ("kit.page_browser",)
CLIPS = nano_path() / "clips"


@pytest.fixture
def backend() -> PageBackend:
    return PageBackend()


def test_several_files_dropped_with_a_question(page):
    page.evaluate(
        """async (names) => {
            const data = new DataTransfer();
            for (const [name, bytes] of names) data.items.add(new File([new Uint8Array(bytes)], name));
            for (const kind of ["dragover", "drop"]) {
                dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));
            }
        }""",
        [[name, list((CLIPS / name).read_bytes())] for name in ("dog.wav", "cat.wav", "rain.wav")],
    )
    page.wait_for_selector("#attachments li:nth-child(3)")
    page.click("#attachments li:nth-child(2) [aria-label='Leave out cat.wav']")
    ask(page, "count")
    lengths = []
    for name in ("dog.wav", "rain.wav"):
        with wave.open(str(CLIPS / name)) as file:
            lengths.append(file.getnframes() / file.getframerate())
    assert answer(page) == "2 clips: " + ", ".join(f"{length:.2f} s" for length in lengths)
    assert page.locator("article.asked figure").count() == 2
    assert page.inner_text("article.asked figcaption >> nth=0").startswith("dog.wav")


def test_a_sound_sent_can_be_played(page):
    page.set_input_files("#files", CLIPS / "dog.wav")
    ask(page, "What is it?")
    answer(page)
    page.click("[aria-label='Play dog.wav']")
    page.wait_for_selector("[aria-label='Stop dog.wav']")
    page.wait_for_selector("[aria-label='Play dog.wav']")


def test_files_that_cannot_be_heard_are_refused_in_words(page, tmp_path, backend):
    empty = tmp_path / "nothing.wav"
    text, picture = tmp_path / "notes.txt", tmp_path / "dog.png"
    text.write_text("no sound in here")
    picture.write_bytes(b"\x89PNG")
    empty.touch()
    page.set_input_files("#files", [text, picture, empty])
    notice = page.wait_for_selector("#notice .trouble").inner_text()
    assert "notes.txt is no sound." in notice and "dog.png is no sound." in notice and "nothing.wav is empty." in notice
    assert page.locator("#attachments li").count() == 0
    page.click("#notice button")
    assert page.is_hidden("#notice")


def test_a_file_that_only_the_server_decodes_is_sent_as_it_is(page, tmp_path, backend):
    file = tmp_path / "bark.wv"
    file.write_bytes(encoded("wv", "wavpack", 1.5))
    assert page.get_attribute("#files", "accept") is None, "no picker hides it"
    page.set_input_files("#files", file)
    assert "The server decodes it." in page.wait_for_selector("#attachments figure").inner_text()
    ask(page, "What is it?")
    assert answer(page) == ANSWER
    assert wav_files_of(backend.seen[0][0]) == [file.read_bytes()]
    assert page.inner_text("article.asked figcaption").split("\n")[:2] == ["bark.wv", "1.5 s"], "as the server heard"


def test_a_file_that_the_server_does_not_decode_either_is_its_to_refuse(page, tmp_path):
    file = tmp_path / "notes.wav"
    file.write_text("no sound in here")
    page.set_input_files("#files", CLIPS / "dog.wav")
    ask(page, "What is it?")
    answer(page)
    page.set_input_files("#files", [CLIPS / "cat.wav", file])
    ask(page, "And these?")
    trouble = page.wait_for_selector("#turns .trouble").inner_text()
    assert "notes.wav is text, not a sound" in trouble, "by its name: the request's third clip is the turn's second"


def test_notes_on_a_clip_stand_below_it_as_sentences(page, backend):
    backend.notes = (
        "Clip 1 has 2 audio tracks; track 2, the default one, is heard.",
        "Clip 1 is damaged: the last 0.5 s could not be decoded.",
    )
    page.set_input_files("#files", CLIPS / "dog.wav")
    ask(page, "What is it?")
    answer(page)
    told = [note.replace("Clip 1", "This clip") for note in backend.notes]
    assert page.locator("article.asked .notes li").all_inner_texts() == told
    assert page.inner_text("article.asked figcaption .measure") == "3.0 s", "seconds for everybody, tokens in Details"
    assert page.evaluate("getComputedStyle(document.querySelector('.notes li span')).whiteSpace") == "normal"
    caption, notes = (page.locator(f"article.asked {part}").bounding_box() for part in (".name", ".notes"))
    assert notes["y"] >= caption["y"] + caption["height"] - 1, "below the name, not beside it"


def test_a_clip_is_transcribed_by_a_click(page, backend):
    page.set_input_files("#files", [CLIPS / "dog.wav", CLIPS / "sum.wav"])
    page.click("#attachments li:nth-child(2) >> text=Transcribe")
    assert answer(page) == ANSWER
    assert page.locator("#attachments li").count() == 1, "the other clip waits for its question"
    messages, params = backend.seen[0]
    assert len(wav_files_of(messages)) == 1 and params.temperature == 0.0, "the server's own words and settings for it"
    assert page.inner_text(".question") == "Transcribe the speech."
    assert re.search(r"\d+ tokens at \d+/s · \d+ of 8192 positions", numbers(page))
    assert page.inner_text("#history .open span") == "Transcript of sum.wav"
    ask(page, "count")
    page.wait_for_selector(f"article:nth-of-type(4){DONE[7:]}")
    assert len(clips_of(backend.seen[1][0])) == 2, "the conversation goes on from there"
    page.click("article:nth-of-type(3) >> text=Transcribe")
    page.wait_for_selector(f"article:nth-of-type(6){DONE[7:]}")
    assert len(clips_of(backend.seen[2][0])) == 1


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_every_clips_remove_button_is_on_the_screen(opened, url, width):
    page = opened(url, viewport={"width": width, "height": 740})
    page.set_input_files("#files", [CLIPS / f"{name}.wav" for name in ("dog", "rain", "glass")])
    page.wait_for_selector("#attachments li:nth-child(3)")
    for name in ("dog", "rain"):
        button = page.locator(f"[aria-label='Leave out {name}.wav']")
        reached = button.evaluate(
            """(button) => {
                const {x, y, width, height} = button.getBoundingClientRect();
                const hit = document.elementFromPoint(x + width / 2, y + height / 2);
                return x >= 0 && x + width <= innerWidth && button.contains(hit);
            }"""
        )
        assert reached, name
