"""What the browser keeps of conversations: over reloads, between tabs, from earlier versions; in a real Chromium."""

from __future__ import annotations

import pytest

from kit.page import DONE, answer, ask, numbers, until
from kit.page_backend import PageBackend, clips_of, wav_files_of
from qwen2_audio.checkpoint.locate import nano_path

pytest_plugins = ("kit.page_browser",)
CLIPS = nano_path() / "clips"


@pytest.fixture
def backend() -> PageBackend:
    return PageBackend()


def test_the_browser_keeps_conversations(page, backend):
    page.set_input_files("#files", CLIPS / "dog.wav")
    ask(page, "What is it?")
    answer(page)
    page.wait_for_selector("#history li")
    page.click("#new")
    page.click("#history .open")
    assert page.inner_text(".question") == "What is it?"
    assert "3.0 s" in page.inner_text("article.asked figcaption")
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
    assert "0.5 s" in page.inner_text("article.asked figcaption")
    assert "first word 90 ms" in numbers(page)
    ask(page, "count")
    page.wait_for_selector(f"article:nth-of-type(4){DONE[7:]}")
    messages, params = backend.seen[0]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert clips_of(messages) == [0.5]
    assert (params.temperature, params.seed) == (0.3, 7)


def test_a_reload_in_mid_answer_keeps_question_recording_and_what_had_come(page, backend):
    page.fill("#text", "on and on")
    page.click("#talk")
    page.wait_for_selector("[data-mode=latched]")
    page.wait_for_timeout(600)
    page.click("#talk")
    page.wait_for_selector("[data-state=writing]")
    page.wait_for_timeout(2600)  # what has come is saved every two seconds
    page.reload()
    assert page.inner_text(".question") == "on and on"
    assert page.inner_text(".answer").startswith("and on and on ")
    assert "Not answered to the end" in page.inner_text(".trouble")
    page.click("[aria-label='Play the recording']")
    page.wait_for_selector("[aria-label='Stop the recording']")
    backend.answer, (asked, _) = "Yes.", backend.seen[0]
    page.click("text=Ask again")
    until(lambda: len(backend.seen) == 2)
    assert wav_files_of(backend.seen[1][0]) == wav_files_of(asked)


def test_a_reload_at_once_keeps_the_question_too(page):
    page.set_input_files("#files", CLIPS / "dog.wav")
    ask(page, "on and on")
    page.wait_for_selector("#history li")
    page.reload()
    assert page.inner_text(".question") == "on and on"
    assert page.is_visible("[aria-label='Play dog.wav']")
    assert page.locator("article.answered:visible").count() == 0, "the model has said nothing"
    assert "Not answered to the end" in page.inner_text(".trouble")


def test_a_new_tab_begins_anew(page, url):
    ask(page, "What is it?")
    answer(page)
    page.wait_for_selector("#history li")
    other = page.context.new_page()
    other.goto(url)
    other.wait_for_selector("#history li")
    assert other.is_visible("#empty")


def tab(page, url):
    """Another tab of the same browser."""
    other = page.context.new_page()
    other.set_default_timeout(10_000)
    other.goto(url)
    other.wait_for_selector("#serving[data-state=up]")
    return other


def test_two_tabs_share_the_list(page, url):
    other = tab(page, url)
    ask(page, "What is it?")
    answer(page)
    assert other.wait_for_selector("#history li .open span").inner_text() == "What is it?"
    page.on("dialog", lambda dialog: dialog.accept())
    page.hover("#history li")
    page.click("#history .bin")
    other.wait_for_selector("#history li", state="detached")


def test_two_tabs_share_the_settings(page, url, backend):
    other = tab(page, url)
    page.click("#open-settings")
    page.fill("#settings [name=system]", "Be brief.")
    until(lambda: other.evaluate("document.querySelector('#settings [name=system]').value === 'Be brief.'"))
    other.click("#aloud")
    ask(other, "What is it?")
    answer(other)
    assert backend.seen[0][0][0] == {"role": "system", "content": "Be brief."}
    saved = page.evaluate("JSON.parse(localStorage.getItem('qwen2-audio.settings'))")
    assert (saved["system"], saved["aloud"]) == ("Be brief.", True), "neither tab overwrites the other's"


def test_a_conversation_open_in_two_tabs_goes_on_in_both(page, url, backend):
    ask(page, "What is it?")
    answer(page)
    other = tab(page, url)
    other.click("#history .open")
    ask(other, "count")
    page.wait_for_selector(f"article:nth-of-type(4){DONE[7:]}")
    assert answer(page) == "0 clips:"
    ask(page, "And now?")
    other.wait_for_selector(f"article:nth-of-type(6){DONE[7:]}")
    assert [message["role"] for message in backend.seen[-1][0]] == ["user", "assistant"] * 2 + ["user"]
    assert page.locator("#history li").count() == 1


def test_two_tabs_that_answer_at_once_lose_nothing(page, url, backend):
    ask(page, "What is it?")
    answer(page)
    other = tab(page, url)
    other.click("#history .open")
    ask(page, "on and on")
    page.wait_for_selector("[data-state=writing]")
    ask(other, "count")
    other.wait_for_selector(f"article:nth-of-type(4){DONE[7:]}")
    page.click("#stop")
    page.wait_for_selector("#history li:nth-child(2)")
    titles = []
    for row in range(2):
        page.locator("#history .open").nth(row).click()
        titles.append(page.inner_text("article:nth-of-type(3) .question"))
    assert sorted(titles) == ["count", "on and on"], "two conversations, with what each tab has"


def test_a_conversation_that_another_tab_deletes_is_left(page, url):
    ask(page, "What is it?")
    answer(page)
    other = tab(page, url)
    other.on("dialog", lambda dialog: dialog.accept())
    other.hover("#history li")
    other.click("#history .bin")
    page.wait_for_selector("#empty")
    assert page.locator("#history li").count() == 0
