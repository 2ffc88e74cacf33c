"""A Chromium whose microphone hears a file, for the tests of the page: a pytest plugin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kit.page import CHROMIUM, QUIET, VOICE, playwright, serving, voice, wav_of


@pytest.fixture(scope="session")
def microphone(tmp_path_factory) -> Path:
    rate = 48_000
    hush = np.zeros(round(QUIET * rate))
    sound = np.concatenate([hush, voice(VOICE, rate), hush])
    sound += np.random.default_rng(0).normal(0, 0.0006, len(sound))
    return wav_of(tmp_path_factory.mktemp("microphone") / "voice.wav", sound, rate)


@pytest.fixture(scope="module")  # not longer: while it runs, this thread has an event loop, which other tests must not
def browser(microphone):
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    flags = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=CHROMIUM, args=[*flags, f"--use-file-for-fake-audio-capture={microphone}"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def url(backend):
    with serving(backend) as address:
        yield address


@pytest.fixture
def opened(browser):
    """opened(url, ...) -> a page; in the end, nothing may have gone wrong in it that was not reported to the person."""
    contexts, faults = [], []

    def open_(url: str, script: str = "", **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        contexts.append(context)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None
        )
        page.goto(url)
        page.wait_for_selector("#serving:not([data-state=asking])")
        return page

    yield open_
    for context in contexts:
        context.close()
    # Chromium itself writes of each response that is no success.
    assert [fault for fault in faults if not fault.startswith("Failed to load resource")] == []


@pytest.fixture
def page(url, opened):
    return opened(url)
