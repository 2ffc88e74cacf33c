"""What the page shows when something fails, and what it keeps: a real Chromium, the real application."""

from __future__ import annotations

import time

import pytest

from kit.page import DONE, answer, ask, serving, until
from kit.page_backend import ANSWER, PageBackend
from qwen2_audio.serve.settings import Settings

pytest_plugins = ("kit.page_browser",)


@pytest.fixture
def backend() -> PageBackend:
    return PageBackend()


def test_a_busy_server_is_asked_again_when_it_said(page, backend):
    began = time.monotonic()
    ask(page, "busy")
    words = page.wait_for_selector(".trouble").inner_text()
    assert "8 requests wait already" in words and "Trying again in 2 s" in words
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
    trouble = page.wait_for_selector(".trouble").inner_text()
    assert "The answer broke off" in trouble and "The server failed on this request" in trouble
    assert page.inner_text(".answer").strip() == "Two words"
    ask(page, "and now?")
    page.wait_for_selector(f"article:nth-of-type(4){DONE[7:]}")
    assert [message["role"] for message in backend.seen[1][0]] == ["user", "assistant", "user"]


def test_a_server_that_is_gone_is_said_and_found_again(page):
    page.route("**/{v1/**,ready}", lambda route: route.abort())
    ask(page, "Hello?")
    assert "The server does not answer." in page.wait_for_selector(".trouble").inner_text()
    page.wait_for_selector("#serving[data-state=down]")
    page.unroute("**/{v1/**,ready}")
    page.click("text=Try again")
    assert answer(page) == ANSWER
    page.wait_for_selector("#serving[data-state=up]")


def looks(page, selector: str) -> dict:
    return page.evaluate(
        """(selector) => {
            const node = document.querySelector(selector), style = getComputedStyle(node);
            return {colour: style.color, ground: style.backgroundColor, icon: !!node.querySelector("svg use")};
        }""",
        selector,
    )


@pytest.mark.parametrize("question", ["too much", "break", "busy"])
def test_a_failure_looks_like_one_and_not_like_the_models_words(page, question):
    ask(page, question)
    page.wait_for_selector(".trouble")
    trouble, title = looks(page, ".trouble"), looks(page, ".trouble b")
    assert trouble["icon"]
    assert title["colour"] == looks(page, ".trouble > svg")["colour"] != looks(page, "body")["colour"]
    assert trouble["ground"] not in ("rgba(0, 0, 0, 0)", looks(page, "body")["ground"])
    assert page.locator("article .trouble").count() == 0, "in no turn of the conversation"
    assert page.locator("article.answered:visible .answer").all_text_contents() == (
        ["Two words "] if question == "break" else []
    ), "under the model's name stands what it said, and nothing where it said nothing"


def test_what_had_come_stays_when_asking_again_fails_too(page):
    ask(page, "break")
    page.wait_for_selector(".trouble")
    page.route("**/v1/**", lambda route: route.abort())
    page.click("text=Try again")
    page.wait_for_selector(".trouble >> text=No connection")
    assert page.inner_text(".answer").strip() == "Two words"
    page.unroute("**/v1/**")
    page.click("text=Try again")
    page.wait_for_selector(".trouble >> text=The server failed on this request")
    assert page.inner_text(".answer").strip() == "Two words", "the new attempt's, and not both"
    assert page.locator(".trouble").count() == 1


def test_a_failure_is_still_one_after_a_reload(page, backend):
    ask(page, "break")
    page.wait_for_selector(".trouble")
    page.wait_for_selector("#history li")
    page.reload()
    assert "The server failed on this request" in page.wait_for_selector(".trouble").inner_text()
    assert page.inner_text(".answer").strip() == "Two words"
    page.click("text=Ask again")
    until(lambda: len(backend.seen) == 2)


def test_the_dot_follows_the_server_without_a_question(opened, backend):
    with serving(backend) as url:
        page = opened(url, viewport={"width": 360, "height": 740})
        page.wait_for_selector("#serving[data-state=up]")
    page.wait_for_selector("#serving[data-state=down]")
    assert page.inner_text("#serving").strip() == "no connection"
    assert page.evaluate(
        "(({scrollWidth, clientWidth}) => scrollWidth <= clientWidth)(document.querySelector('#serving-text'))"
    ), "the words are whole on a phone"
    backend.name = "test/another"
    with serving(backend, port=int(url.rstrip("/").rpartition(":")[2])):
        page.wait_for_selector("#serving[data-state=up]")
        until(lambda: page.evaluate("document.querySelector('#serving').innerText.trim() === 'another'"))
        page.context.close()


def test_a_server_that_hangs_is_not_waited_for(page):
    page.route("**/ready", lambda route: None)  # never answered
    page.wait_for_selector("#serving[data-state=down]", timeout=15_000)
    page.unroute("**/ready")
    page.wait_for_selector("#serving[data-state=up]")


def test_an_answer_whose_connection_is_lost_keeps_what_had_come(page):
    part = 'data: {"choices": [{"index": 0, "delta": {"content": "Two words"}, "finish_reason": null}]}\n\n'
    page.route("**/v1/chat/**", lambda route: route.fulfill(content_type="text/event-stream", body=part))
    ask(page, "What is it?")
    assert "The answer broke off" in page.wait_for_selector(".trouble").inner_text()
    assert page.inner_text(".answer") == "Two words"
    page.unroute("**/v1/chat/**")
    page.click("text=Try again")
    assert answer(page) == ANSWER


def test_a_server_that_was_exchanged_unnoticed_is_found_out_at_the_next_question(page, backend):
    backend.name = "test/another"
    ask(page, "Hello?")
    assert "There is no model 'test/listener' here" in page.wait_for_selector(".trouble").inner_text()
    until(lambda: page.evaluate("document.querySelector('#serving').innerText.trim() === 'another'"))
    page.click("text=Try again")
    assert answer(page) == ANSWER


def test_a_proxy_that_does_not_reach_the_server_is_told_apart(page):
    page.route("**/v1/chat/**", lambda route: route.fulfill(status=502, body="<html>Bad Gateway"))
    ask(page, "Hello?")
    assert "The proxy does not reach the server (502)." in page.wait_for_selector(".trouble").inner_text()


@pytest.fixture
def locked(backend):
    """The address of a server with a key."""
    with serving(backend, Settings(api_keys=("open-sesame",))) as url:
        yield url


def test_a_server_with_a_key_asks_for_it_and_remembers(opened, locked):
    page = opened(locked)
    assert page.inner_text("#serving").strip() == "needs a key"
    ask(page, "Hello?")
    page.fill(".trouble input", "open-sesame")
    page.press(".trouble input", "Enter")
    assert answer(page) == ANSWER
    page.reload()
    page.wait_for_selector("#serving[data-state=up]")
    assert page.input_value("#settings [name=key]") == "open-sesame"
    page.context.close()


def test_the_empty_page_of_a_locked_server_leads_to_the_key(opened, locked):
    page = opened(locked)
    assert "This server asks for an API key." in page.inner_text("#empty")
    page.click("#enter-key")
    assert page.evaluate("document.activeElement.name") == "key"
    page.keyboard.type("open-sesame")
    page.keyboard.press("Enter")
    page.wait_for_selector("#samples li")
    assert page.is_hidden("#locked")
    page.context.close()


def test_a_wrong_key_is_said_once(opened, locked, backend):
    page = opened(locked)
    ask(page, "Hello?")
    for key in ("sesame", "please"):
        page.fill(".trouble input", key)
        page.press(".trouble input", "Enter")
        page.wait_for_selector(".trouble >> text=Wrong API key")
        until(lambda: page.evaluate("document.querySelector('.trouble input').value === ''"))
        assert page.inner_text("#page").count("does not accept this API key") == 1
        assert page.locator(".trouble").count() == 1
    page.fill(".trouble input", "open-sesame")
    page.press(".trouble input", "Enter")
    assert answer(page) == ANSWER
    assert len(backend.seen) == 1
    page.context.close()


def test_the_key_has_a_field_in_the_settings(opened, locked):
    page = opened(locked)
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "/v1/" in request.url else None)
    page.click("#open-settings")
    page.fill("#settings [name=key]", "sesame")
    assert page.evaluate("localStorage.getItem('qwen2-audio.settings') ?? ''").count("sesame") == 0, "not half typed"
    page.press("#settings [name=key]", "Enter")
    page.wait_for_selector("#key-words >> text=The server does not accept this API key.")
    assert page.get_attribute("#settings [name=key]", "aria-invalid") == "true"
    assert len(asked) == 1, "not at every letter"
    page.fill("#settings [name=key]", "open-sesame")
    page.press("#settings [name=key]", "Enter")
    page.wait_for_selector("#key-words >> text=The server takes it.")
    page.wait_for_selector("#serving[data-state=up]")
    assert page.get_attribute("#settings [name=key]", "type") == "password"
    page.keyboard.press("Escape")
    ask(page, "Hello?")
    assert answer(page) == ANSWER
    page.context.close()
