"""What the page does to sound, against what it must be: resampling, WAV, log-mel, voice activity."""

from __future__ import annotations

import base64
import io
import wave

import numpy as np
import pytest
import soxr

from kit.page import voice
from kit.page_backend import PageBackend

pytest_plugins = ("kit.page_browser",)
RATE = 16_000


@pytest.fixture
def backend() -> PageBackend:
    return PageBackend()


def heard_through(page, samples: np.ndarray, rate: int, blocks: list[int]) -> np.ndarray:
    """`samples` through the page's resampler in blocks of these lengths, in turn."""
    out = page.evaluate(
        """async ([samples, rate, blocks]) => {
            const {Resampler} = await import("/static/resample.js");
            const resampler = new Resampler(rate);
            const out = [];
            for (let at = 0, i = 0; at < samples.length; at += blocks[i++ % blocks.length]) {
                out.push(...resampler.push(Float32Array.from(samples.slice(at, at + blocks[i % blocks.length]))));
            }
            return out;
        }""",
        [samples.tolist(), rate, blocks],
    )
    return np.array(out)


@pytest.mark.parametrize("rate", [44_100, 48_000, 96_000, 8_000])
def test_resampling_is_that_of_soxr(page, rate):
    sound = voice(0.5, rate) + 0.1 * np.sin(2 * np.pi * 3000 * np.arange(rate // 2) / rate)
    got = heard_through(page, sound, rate, [512])
    wanted = soxr.resample(sound, rate, RATE, quality="VHQ")[: len(got)]
    middle = slice(400, len(got) - 400)
    noise = np.std(got[middle] - wanted[middle])
    assert 20 * np.log10(np.std(wanted[middle]) / noise) > 60
    assert len(got) > len(sound) * RATE / rate - 60


def test_nothing_above_8_khz_folds_back(page):
    whistle = np.sin(2 * np.pi * 11_000 * np.arange(24_000) / 48_000)
    got = heard_through(page, whistle, 48_000, [512])[200:-200]
    assert 20 * np.log10(np.abs(got).max()) < -70


def test_blocks_do_not_matter(page):
    sound = voice(0.3, 44_100)
    at_once = heard_through(page, sound, 44_100, [len(sound)])
    in_blocks = heard_through(page, sound, 44_100, [441, 1, 700])
    assert np.array_equal(at_once, in_blocks)


def test_the_wav_is_one_that_others_read(page):
    sound = np.clip(30 * voice(0.4, RATE), -1.2, 1.2)
    sent = page.evaluate(
        """async (samples) => {
            const {toWav, fromWav, base64} = await import("/static/wav.js");
            const wav = toWav(Float32Array.from(samples));
            const native = base64(wav);
            wav.toBase64 = undefined;  // as in browsers that have none
            return [native, base64(wav), [...fromWav(wav)]];
        }""",
        sound.tolist(),
    )
    assert sent[0] == sent[1]
    with wave.open(io.BytesIO(base64.b64decode(sent[0]))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        got = np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32768
    assert np.abs(got - np.clip(sound, -1, 32767 / 32768)).max() <= 0.51 / 32768
    assert np.array_equal(got, sent[2])


@pytest.mark.parametrize("hertz", [250, 1000, 4000])
def test_a_tone_is_drawn_where_the_mel_scale_has_it(page, hertz):
    loudest, rows = page.evaluate(
        """async (hertz) => {
            const {Mel, ROWS} = await import("/static/mel.js");
            const tone = Float32Array.from({length: 1600}, (_, i) => Math.sin(2 * Math.PI * hertz * i / 16000));
            const column = new Mel().column(tone, 800);
            return [column.indexOf(Math.max(...column)), ROWS];
        }""",
        hertz,
    )
    mel = 3 * hertz / 200 if hertz < 1000 else 15 + 27 * np.log(hertz / 1000) / np.log(6.4)
    top = 15 + 27 * np.log(8) / np.log(6.4)
    assert abs(loudest - (mel / top * (rows + 1) - 1)) <= 1


def turns_of(page, sound: np.ndarray, reading: bool = False) -> list[tuple[str, float]]:
    """What the voice detector says of `sound`, and when, in s."""
    return page.evaluate(
        """async ([samples, reading]) => {
            const {FRAME, Vad} = await import("/static/vad.js");
            const vad = new Vad();
            vad.reading = reading;
            const said = [];
            for (let at = 0; at + FRAME <= samples.length; at += FRAME) {
                const event = vad.push(Float32Array.from(samples.slice(at, at + FRAME)));
                if (event) said.push([event, (at + FRAME) / 16000]);
            }
            return said;
        }""",
        [np.round(sound, 5).tolist(), reading],
    )


@pytest.mark.parametrize("noise_db", [-80, -60, -45])
def test_two_utterances_are_told_apart_in_quiet_and_in_noise(page, noise_db):
    hush = np.zeros(2 * RATE)
    sound = np.concatenate([hush, voice(1.5, RATE), hush, voice(1.0, RATE), hush])
    sound += np.random.default_rng(1).normal(0, 10 ** (noise_db / 20), len(sound))
    events = turns_of(page, sound)
    assert [kind for kind, _ in events] == ["start", "end", "start", "end"]
    wanted = [2.0, 3.5 + 0.7, 5.5, 6.5 + 0.7]  # an end is told after 0.7 s of quiet
    assert np.abs(np.array([when for _, when in events]) - wanted).max() < 0.35


def test_knocks_hum_and_a_fan_are_no_speech(page):
    rng, time = np.random.default_rng(2), np.arange(8 * RATE) / RATE
    hum = 0.02 * np.sin(2 * np.pi * 50 * time)
    fan = rng.normal(0, 1, len(time)) * 0.004 * np.clip((time - 2) / 4, 0, 1)
    knock = np.where((time > 1) & (time < 1.04), 0.2, 0) * rng.normal(0, 1, len(time))
    assert turns_of(page, hum + fan + knock + rng.normal(0, 0.0005, len(time))) == []


def test_its_own_faint_reading_does_not_interrupt_it_but_a_person_does(page):
    hush = np.zeros(RATE)
    echo, person = 0.12 * voice(1.5, RATE), voice(1.5, RATE)
    noise = np.random.default_rng(3).normal(0, 0.001, 5 * RATE)
    sound = np.concatenate([hush, echo, person, hush]) + noise
    when = turns_of(page, sound, reading=True)[0][1]
    assert 2.5 < when < 3.2
