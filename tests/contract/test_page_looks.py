"""The page for everybody: contrast, names, sizes, widths, at three widths in light and dark."""

from __future__ import annotations

import pytest

from kit.page import answer, ask
from kit.page_backend import PageBackend
from qwen2_audio.checkpoint.locate import nano_path

pytest_plugins = ("kit.page_browser",)
CLIPS = nano_path() / "clips"


@pytest.fixture
def backend() -> PageBackend:
    return PageBackend()


def test_who_wants_no_motion_sees_none(opened, url):
    moving = []
    for wish in ("reduce", "no-preference"):
        page = opened(url, reduced_motion=wish)
        ask(page, "on and on")
        page.wait_for_selector("[data-state=writing]")
        moving.append(page.evaluate("document.getAnimations().length") > 0)
    assert moving == [False, True]


CONTRAST = """() => {
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = (rgb) => rgb.slice(0, 3).map((v) => linear(v / 255))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = (node) => {
        for (; node; node = node.parentElement) {
            const colour = parse(getComputedStyle(node).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
    };
    const poor = [];
    for (const node of document.querySelectorAll("body *")) {
        const words = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
        if (!words || !node.checkVisibility({visibilityProperty: true}) || node.closest(".unseen, :disabled")) continue;
        const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) poor.push(`${node.tagName}.${node.className}: ${ratio.toFixed(2)}`);
    }
    return poor;
}"""
NAMELESS = """() => [...document.querySelectorAll("button, input, textarea, select, canvas")]
    .filter((node) => !node.hidden && !node.ariaHidden)
    .filter((node) => !(node.ariaLabel || node.labels?.length || node.textContent.trim()))
    .map((node) => node.outerHTML)"""
SMALL = """() => [...document.querySelectorAll("button, a, input:not([hidden]), select")]
    .filter((node) => node.checkVisibility({visibilityProperty: true}) && !node.closest("label"))
    .filter((node) => node.getBoundingClientRect().height < 24 || node.getBoundingClientRect().width < 24)
    .map((node) => node.id || node.className)"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_everything_can_be_read_named_and_hit(opened, url, width, scheme):
    page = opened(url, viewport={"width": width, "height": 740}, color_scheme=scheme, reduced_motion="reduce")
    seen = [page.evaluate(CONTRAST)]
    page.set_input_files("#files", [CLIPS / "dog.wav", CLIPS / "rain.wav"])
    page.wait_for_selector("#attachments li:nth-child(2)")
    ask(page, "What are these? " + "Unbreakable" * 20)
    answer(page)
    ask(page, "too much")
    page.wait_for_selector(".trouble")
    page.click("#talk")
    page.wait_for_selector("[data-mode=latched]")
    seen.append(page.evaluate(CONTRAST))
    assert (
        page.evaluate("[document.documentElement.scrollWidth, document.querySelector('#scroll').scrollWidth]")
        <= [width] * 2
    )
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate(SMALL) == []
    page.keyboard.press("Escape")
    page.click("#open-settings")
    seen.append(page.evaluate(CONTRAST))
    assert seen == [[], [], []]
