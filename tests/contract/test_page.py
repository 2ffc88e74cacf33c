"""The page at `/` as a person uses it: a real Chromium, a fake microphone, the real application, a scripted backend."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from kit.page import DONE, VOICE, answer, ask, numbers, serving, until
from kit.page_backend import ANSWER, PageBackend, clips_of, wav_files_of
from qwen2_audio.checkpoint.locate import nano_path
from qwen2_audio.serve.app import STATIC

pytest_plugins = ("kit.page_browser",)
CLIPS = nano_path() / "clips"


@pytest.fixture
def backend() -> PageBackend:
    return PageBackend()


# What the page is made of


def files() -> list[Path]:
    return sorted(path for path in STATIC.rglob("*") if path.is_file())


def test_it_is_small():
    """80,000 bytes held the page before samples, transcripts, tabs, reloads, and what it does about failures; 96,000
    all of that; the timeline of a long transcript, its search and its files took the rest."""
    assert sum(path.stat().st_size for path in files()) < 104_000


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_it_takes_nothing_from_elsewhere_and_nothing_is_inline(path):
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[\w./]*", text)) <= {"http://www.w3.org/2000/svg"}
    assert "@import" not in text
    if path.suffix == ".html":
        assert not re.search(r"<style|<script>|\sstyle=|\son\w+=", text)


# What a person does with it


def test_the_browser_is_told_to_take_nothing_else_in(page, url):
    policy = page.request.get(url).headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy


def test_hold_space_talk_let_go_read_the_answer(page, backend):
    page.keyboard.down(" ")
    page.wait_for_selector("[data-mode=held]")
    page.wait_for_timeout(1500)
    page.keyboard.up(" ")
    assert answer(page) == ANSWER
    ((messages, _),) = backend.seen
    (seconds,) = clips_of(messages)
    assert 1.3 < seconds < 2.2
    assert f"{seconds:.1f} s" in page.inner_text("article.asked figcaption")
    assert float(re.search(r"sent after ([\d.]+) ms", numbers(page))[1]) < 250  # 16 on an idle machine; nothing waits
    (wav_file,) = wav_files_of(messages)
    assert np.abs(np.frombuffer(wav_file[44:], "<i2")).max() > 300, "the microphone's voice is in it"


def test_tap_to_begin_tap_to_send_and_escape_drops_it(page, backend):
    page.click("#talk")
    page.wait_for_selector("[data-mode=latched]")
    page.wait_for_timeout(400)
    page.keyboard.press("Escape")
    page.wait_for_selector("[data-mode=off]")
    page.click("#talk")
    page.wait_for_selector("[data-mode=latched]")
    page.wait_for_timeout(500)
    page.click("#talk")
    assert answer(page) == ANSWER
    assert len(backend.seen) == 1


def test_what_is_typed_goes_with_what_is_said(page, backend):
    page.fill("#text", "count")
    page.click("#talk")
    page.wait_for_timeout(600)
    page.click("#talk")
    assert answer(page).startswith("1 clips: ")


def test_hands_free_sends_what_was_said_without_a_key(page, backend):
    page.click("#hands-free")
    assert answer(page) == ANSWER
    (seconds,) = clips_of(backend.seen[0][0])
    assert VOICE < seconds < VOICE + 0.9  # the voice, a little before and after it
    page.click("#hands-free")
    page.wait_for_selector("[data-mode=off]")


def test_talking_interrupts_the_answer(page, backend):
    ask(page, "on and on")
    page.wait_for_selector("[data-state=writing]")
    page.click("#hands-free")
    page.wait_for_selector("article.answered >> text=Interrupted.")
    assert page.get_attribute("body", "data-mode") == "hearing" and len(backend.seen) == 1, "at once, not when sent"
    until(lambda: "cancelled" in backend.ends)
    page.wait_for_selector(f"article:nth-of-type(4){DONE[7:]}")
    assert answer(page) == ANSWER
    spoken = backend.seen[1][0]
    assert [message["role"] for message in spoken] == ["user", "assistant", "user"]
    assert spoken[1]["content"].startswith("and on")


def test_stop_ends_the_answer_here_and_there(page, backend):
    ask(page, "on and on")
    page.wait_for_selector("[data-state=writing]")
    page.click("#stop")
    assert page.inner_text(f"{DONE} .end") == "Stopped."
    until(lambda: backend.ends == ["cancelled"])
    assert page.is_visible("#send")


def test_stop_stays_while_the_next_question_is_typed(page, backend):
    ask(page, "on and on")
    page.wait_for_selector("[data-state=writing]")
    page.fill("#text", "and now?")
    assert page.is_visible("#stop") and page.is_visible("#send"), "one ends the answer, one interrupts it"
    page.click("#stop")
    until(lambda: backend.ends == ["cancelled"])
    assert page.input_value("#text") == "and now?"


def test_an_answer_can_be_copied(opened, url, backend):
    page = opened(url, permissions=["clipboard-read", "clipboard-write"])
    ask(page, "What is it?")
    answer(page)
    page.click(f"{DONE} [aria-label='Copy this answer']")
    until(lambda: page.evaluate("document.querySelector('#said').textContent === 'Copied.'"))
    assert page.evaluate("navigator.clipboard.readText()").strip() == ANSWER


def test_an_answer_can_be_copied_where_a_page_has_no_clipboard(opened, url):
    page = opened(
        url,
        "Object.defineProperty(navigator, 'clipboard', {value: undefined}); window.copied = [];"
        "document.execCommand = (what) => copied.push([what, String(getSelection())])",
    )
    ask(page, "What is it?")
    answer(page)
    page.click(f"{DONE} [aria-label='Copy this answer']")
    until(lambda: page.evaluate("copied.length === 1"))
    (what, text) = page.evaluate("copied[0]")
    assert (what, text.strip()) == ("copy", ANSWER)


def test_numbers_for_developers_wait_behind_details(page):
    ask(page, "What is it?")
    answer(page)
    assert "tokens" not in page.inner_text("#turns"), "not in the way"
    page.click(f"{DONE} summary")
    assert re.fullmatch(
        r"first word \d+ ms · 9 tokens at \d+/s · 33 of 8192 positions · sent after [\d.]+ ms",
        page.inner_text(f"{DONE} details p"),
    )
    ask(page, "And this?")
    page.wait_for_selector(f"article:nth-of-type(4){DONE[7:]}")
    assert page.is_visible(f"{DONE} details p"), "who has opened them once sees them"


PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def test_on_a_phone_a_recording_can_be_dropped(opened, url, backend):
    page = opened(url, **PHONE)
    page.tap("#talk")
    page.wait_for_selector("[data-mode=latched]")
    page.wait_for_timeout(400)
    page.tap("#drop-recording")
    page.wait_for_selector("[data-mode=off]")
    assert page.is_hidden("#drop-recording") and page.locator("article").count() == 0
    hold(page, away=120)
    page.wait_for_selector("[data-mode=off]")
    assert page.locator("article").count() == 0, "a finger that slides away drops it"
    hold(page, away=0)
    assert answer(page) == ANSWER
    assert len(backend.seen) == 1


def hold(page, away: float) -> None:
    """A finger goes down on the talk button, and up after half a second, `away` CSS pixels higher."""
    box = page.locator("#talk").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    page.wait_for_selector("[data-mode=held]")
    page.wait_for_timeout(500)
    if away:
        y = box["y"] - away
        touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": x, "y": y}]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


@pytest.mark.parametrize(
    ("name", "words"),
    [("NotAllowedError", "not allowed to use the microphone"), ("NotFoundError", "No microphone was found")],
)
def test_without_a_microphone_it_says_why(opened, url, name, words):
    page = opened(url, f"navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', '{name}'))")
    page.keyboard.down(" ")
    assert words in page.wait_for_selector("#notice p").inner_text()
    page.keyboard.up(" ")
    assert page.get_attribute("body", "data-mode") == "off"
    page.click("#hands-free")
    page.wait_for_selector("#hands-free[aria-checked=false]")


def test_a_browser_whose_sound_never_starts_is_not_waited_for(opened, url):
    page = opened(url, "AudioContext.prototype.resume = () => new Promise(() => {})")  # Firefox without an output
    page.click("#hands-free")
    assert "lacks a sound output" in page.wait_for_selector("#notice p").inner_text()
    assert page.get_attribute("body", "data-mode") == "off"
    page.wait_for_selector("#hands-free[aria-checked=false]")


def test_settings_reach_the_model_and_last(page, backend):
    page.click("#open-settings")
    for name, value in {
        "temperature": "0.3",
        "top_p": "0.9",
        "max_tokens": "3",
        "seed": "7",
        "system": "Be brief.",
    }.items():
        page.fill(f"#settings [name={name}]", value)
    page.select_option("#settings [name=theme]", "dark")
    page.keyboard.press("Escape")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark != "rgb(238, 241, 245)"
    page.wait_for_selector("#serving[data-state=up]")
    ask(page, "Hello?")
    answer(page)
    messages, params = backend.seen[0]
    assert messages[0] == {"role": "system", "content": "Be brief."}
    assert (params.temperature, params.top_p, params.max_tokens, params.seed) == (0.3, 0.9, 3, 7)


SPEECH = """
const spoken = [];
window.spoken = spoken;
speechSynthesis.speak = (one) => spoken.push(one.text);
speechSynthesis.cancel = () => spoken.push("(cancelled)");
"""


def test_answers_are_read_aloud_sentence_by_sentence_and_fall_silent(opened, url, backend):
    backend.answer = "First this. Then that"
    page = opened(url, SPEECH)
    page.click("#aloud")
    ask(page, "Read")
    answer(page)
    assert page.evaluate("spoken.filter((one) => one[0] != '(')") == ["First this.", "Then that"]
    assert page.is_visible("#stop"), "reading can be stopped, too"
    page.click("#stop")
    assert page.evaluate("spoken.at(-1)") == "(cancelled)"


def test_by_keyboard_alone(page, backend):
    reached = set()
    for _ in range(32):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"new", "aloud", "open-settings", "attach", "text", "talk", "hands-free"} <= reached
    page.focus("#text")
    page.keyboard.type("on and on")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-state=writing]")
    page.keyboard.press("Escape")
    assert page.inner_text(f"{DONE} .end") == "Stopped."
    page.focus("#talk")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-mode=latched]")
    page.wait_for_timeout(400)
    page.keyboard.press("Enter")
    page.wait_for_selector(f"article:nth-of-type(4){DONE[7:]}")
    assert page.inner_text("#said") == f"Answer: {ANSWER}"


def test_a_spoken_question_to_nano(opened):
    """The real thing from end to end: microphone, page, server, engine, model."""
    from qwen2_audio import load
    from qwen2_audio.api.service import Service

    model = load()
    service = Service(model.model, model.processor, name="nano", about=model.about)
    with serving(service) as url:
        page = opened(url)
        assert page.inner_text("#serving").strip() == "nano"
        page.keyboard.down(" ")
        page.wait_for_selector("[data-mode=held]")
        page.wait_for_timeout(2000)
        page.keyboard.up(" ")
        assert answer(page).startswith("I ")  # "I hear a bell.", or that it does not know the browser's beeps
        assert re.search(r"\d of sound", numbers(page))
        page.set_input_files("#files", CLIPS / "dog.wav")
        ask(page, "What is that sound?")
        page.wait_for_selector(f"article:nth-of-type(4){DONE[7:]}")
        assert "dog" in answer(page)
        page.context.close()
