"""The page at `/` as a person uses it: a real Chromium, a fake microphone, the real application, a scripted backend."""

from __future__ import annotations

import re
import time
import wave
from pathlib import Path

import numpy as np
import pytest

from kit.page import DONE, VOICE, answer, ask, serving, until, wav_of
from kit.page_backend import ANSWER, PageBackend, clips_of, wav_files_of
from qwen2_audio.api.loading import nano_path
from qwen2_audio.serve.app import STATIC
from qwen2_audio.serve.settings import Settings

pytest_plugins = ("kit.page_browser",)
CLIPS = nano_path() / "clips"


@pytest.fixture
def backend() -> PageBackend:
    return PageBackend()


# What the page is made of


def files() -> list[Path]:
    return sorted(path for path in STATIC.rglob("*") if path.is_file())


def test_it_is_small():
    assert sum(path.stat().st_size for path in files()) < 80_000


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


def test_the_empty_page_says_what_to_do_and_what_answers(page):
    assert page.inner_text("#serving").strip() == "listener"
    assert [button.split("\n")[0] for button in page.locator(".tries button").all_inner_texts()] == [
        "Talk", "Drop a clip", "Type",
    ]  # fmt: skip
    page.click("#try-type")
    assert page.evaluate("document.activeElement.id") == "text"


def test_hold_space_talk_let_go_read_the_answer(page, backend):
    page.keyboard.down(" ")
    page.wait_for_selector("[data-mode=held]")
    page.wait_for_timeout(1500)
    page.keyboard.up(" ")
    assert answer(page) == ANSWER
    ((messages, _),) = backend.seen
    (seconds,) = clips_of(messages)
    assert 1.3 < seconds < 2.2
    tokens = round(25 * seconds)
    assert f"{tokens} tokens heard" in page.inner_text("article.asked figcaption")
    assert re.search(r"first word \d+ ms", page.inner_text(f"{DONE} .meta"))
    work = float(re.search(r"sent ([\d.]+) ms", page.get_attribute(f"{DONE} .meta span", "title"))[1])
    assert work < 50
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
    assert "Stopped." in page.inner_text(f"{DONE} .meta")
    until(lambda: backend.ends == ["cancelled"])
    assert page.is_visible("#send")


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
    long, text = tmp_path / "talk.wav", tmp_path / "notes.wav"
    wav_of(long, np.zeros(8000 * 64), 8000)
    text.write_text("no sound in here")
    page.set_input_files("#files", [long, text])
    notice = page.wait_for_selector("#notice p").inner_text()
    assert "talk.wav is 1 min 4 s long; a clip holds 30 s at most." in notice
    assert "notes.wav is not sound that this browser can decode." in notice
    assert page.locator("#attachments li").count() == 0
    page.click("#notice button")
    assert page.is_hidden("#notice")


def test_a_busy_server_is_asked_again_when_it_said(page, backend):
    began = time.monotonic()
    ask(page, "busy")
    words = page.wait_for_selector(".trouble").inner_text()
    assert "8 requests wait already" in words and "Trying again in 2 s" in words
    assert page.is_hidden(".answer"), "there is none, and no empty line in its place"
    page.wait_for_selector(".trouble", state="detached")
    assert answer(page) == ANSWER
    assert time.monotonic() - began > 2


def test_a_full_context_is_said_and_a_new_conversation_offered(page):
    ask(page, "too much")
    assert "9000 positions" in page.wait_for_selector(".trouble").inner_text()
    page.click("text=Ask it in a new conversation")
    page.wait_for_selector(".trouble")
    assert page.locator("article").count() == 2


def test_an_answer_that_breaks_off_keeps_its_beginning(page, backend):
    ask(page, "break")
    assert "The server failed on this request" in page.wait_for_selector(".trouble").inner_text()
    assert page.inner_text(".answer").strip() == "Two words"
    ask(page, "and now?")
    page.wait_for_selector(f"article:nth-of-type(4){DONE[7:]}")
    assert [message["role"] for message in backend.seen[1][0]] == ["user", "assistant", "user"]


def test_a_server_that_is_gone_is_said_and_found_again(page):
    page.route("**/v1/**", lambda route: route.abort())
    ask(page, "Hello?")
    assert "The server does not answer." in page.wait_for_selector(".trouble").inner_text()
    page.wait_for_selector("#serving[data-state=down]")
    page.unroute("**/v1/**")
    page.click("text=Try again")
    assert answer(page) == ANSWER
    page.wait_for_selector("#serving[data-state=up]")


def test_a_server_with_a_key_asks_for_it_and_remembers(opened, backend):
    with serving(backend, Settings(api_keys=("open-sesame",))) as url:
        page = opened(url)
        assert page.inner_text("#serving").strip() == "needs an API key"
        ask(page, "Hello?")
        page.fill(".trouble input", "open-sesame")
        page.press(".trouble input", "Enter")
        assert answer(page) == ANSWER
        page.reload()
        page.wait_for_selector("#serving[data-state=up]")
        page.context.close()


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


def test_the_browser_keeps_conversations(page, backend):
    page.set_input_files("#files", CLIPS / "dog.wav")
    ask(page, "What is it?")
    answer(page)
    page.wait_for_selector("#history li")
    page.reload()
    page.click("#history .open")
    assert page.inner_text(".question") == "What is it?"
    assert "tokens heard" in page.inner_text("article.asked figcaption")
    ask(page, "count")
    page.wait_for_selector(f"article:nth-of-type(4){DONE[7:]}")
    assert len(clips_of(backend.seen[1][0])) == 1, "the sound of the first question is sent again"
    page.click("#new")
    page.on("dialog", lambda dialog: dialog.accept())
    page.hover("#history li")
    page.click("#history .bin")
    page.wait_for_selector("#history li", state="detached")
    page.reload()
    page.wait_for_selector("#serving[data-state=up]")
    assert page.locator("#history li").count() == 0


# What the page of 0.1.0 saved: settings, and a conversation with a clip of half a second.
SAVED = """
localStorage.setItem("qwen2-audio.settings", JSON.stringify({
    model: "test/listener", system: "Be brief.", temperature: "0.3", top_p: "", max_tokens: "", seed: "7",
    theme: "dark", key: "", aloud: false,
}));
window.saved = new Promise((resolve) => {
    const request = indexedDB.open("qwen2-audio", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("conversations", {keyPath: "id"});
    request.onsuccess = () => {
        const wav = new Uint8Array(44 + 16000);
        wav.set(new TextEncoder().encode("RIFF"));
        wav.set([128, 62, 0, 0, 87, 65, 86, 69, 102, 109, 116, 32, 16, 0, 0, 0, 1, 0, 1, 0, 128, 62, 0, 0], 4);
        wav.set([0, 125, 0, 0, 2, 0, 16, 0, 100, 97, 116, 97, 128, 62, 0, 0], 28);
        const usage = {prompt_tokens: 36, completion_tokens: 9, context: 8192};
        const transaction = request.result.transaction("conversations", "readwrite");
        transaction.objectStore("conversations").put({
            id: "1750000000000-0.5", title: "What is it?", changed: 1750000000000,
            turns: [
                {role: "user", text: "What is it?", clips: [{wav, name: "dog.wav", heard: {seconds: 0.5, tokens: 12}}]},
                {role: "assistant", text: "A dog.", end: "stop", model: "listener",
                 timing: {work: 1, first: 90, span: 100}, usage},
            ],
        });
        transaction.oncomplete = () => (request.result.close(), resolve());
    };
});
"""


def test_what_an_earlier_version_saved_is_read(page, backend):
    page.evaluate(SAVED)
    page.evaluate("window.saved")
    page.reload()
    page.wait_for_selector("#serving[data-state=up]")
    assert page.get_attribute("html", "data-theme") == "dark"
    page.click("#history .open")
    assert page.inner_text(".question") == "What is it?"
    assert page.inner_text(".answer").strip() == "A dog."
    assert "0.5 s, 12 tokens heard" in page.inner_text("article.asked figcaption")
    assert "first word 90 ms" in page.inner_text(f"{DONE} .meta")
    ask(page, "count")
    page.wait_for_selector(f"article:nth-of-type(4){DONE[7:]}")
    messages, params = backend.seen[0]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert clips_of(messages) == [0.5]
    assert (params.temperature, params.seed) == (0.3, 7)


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
    for _ in range(16):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {"new", "aloud", "open-settings", "attach", "text", "talk", "hands-free", "try-talk"} <= reached
    page.focus("#text")
    page.keyboard.type("on and on")
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-state=writing]")
    page.keyboard.press("Escape")
    assert "Stopped." in page.inner_text(f"{DONE} .meta")
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
        assert re.search(r"\d tokens heard", page.inner_text("article.asked figcaption"))
        page.set_input_files("#files", CLIPS / "dog.wav")
        ask(page, "What is that sound?")
        page.wait_for_selector(f"article:nth-of-type(4){DONE[7:]}")
        assert "dog" in answer(page)
        page.context.close()
