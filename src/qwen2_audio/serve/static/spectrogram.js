// The picture of a clip: waveform above, log-mel spectrogram below, and a ruler with a tick for each audio token.

import { Mel, ROWS } from "./mel.js";
import { RATE, joined } from "./resample.js";

const TOKENS_A_SECOND = 25;
const DECADES = 5.5; // of power, from the loudest down to the background
const RULER = 9; // CSS pixels of height
const SCALE = 75; // CSS pixels a second, if they fit: three for each token

const LIGHT = [0xffffff, 0xd3dfef, 0x86a9d6, 0x2f62a8, 0x12305f, 0x081429];
const DARK = [0x161e2d, 0x1d3358, 0x2f5f9f, 0x6ba3dd, 0xc9def0, 0xfff1d6];

const isDark = () => {
	const { theme } = document.documentElement.dataset;
	return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

function palette(dark) {
	const stops = (dark ? DARK : LIGHT).map((rgb) => [rgb >> 16, (rgb >> 8) & 255, rgb & 255]);
	return Array.from({ length: 256 }, (_, i) => {
		const x = (i / 255) * (stops.length - 1);
		const low = Math.min(Math.floor(x), stops.length - 2);
		return stops[low].map((v, c) => v + (x - low) * (stops[low + 1][c] - v));
	});
}

/** Writes a column into `image` at `x`; `top` is the log power drawn darkest, `share` how vivid it is. */
function paint(image, x, column, { top, colours, share = 1 }) {
	for (let row = 0; row < ROWS; row++) {
		const value = Math.max(0, Math.min(1, (column[row] - top) / DECADES + 1));
		const colour = colours[Math.round(255 * share * value)];
		const at = 4 * ((ROWS - 1 - row) * image.width + x);
		for (let c = 0; c < 3; c++) image.data[at + c] = colour[c];
		image.data[at + 3] = 255 * Math.min(1, 5 * share * value); // the background shows through silence
	}
}

/** Sizes the canvas to its box and returns its context, which draws in CSS pixels. */
function fit(canvas) {
	const { clientWidth: width, clientHeight: height } = canvas;
	canvas.width = width * devicePixelRatio;
	canvas.height = height * devicePixelRatio;
	const pen = canvas.getContext("2d");
	pen.scale(devicePixelRatio, devicePixelRatio);
	return { pen, width, height };
}

export const widthOf = (seconds) => Math.max(120, Math.round(seconds * SCALE));

/** Draws all of `samples`; the waveform is `wave` CSS pixels high. */
export function draw(canvas, samples, wave = 20) {
	const { pen, width, height } = fit(canvas);
	if (!width || !samples.length) return;
	const dark = isDark();
	const columns = Math.min(Math.ceil(samples.length / 160), Math.round(width * Math.min(2, devicePixelRatio)));
	pen.drawImage(spectrogram(samples, columns, dark), 0, wave, width, height - wave - RULER);
	pen.fillStyle = dark ? "#6f88ad" : "#6d83a6";
	if (wave) drawWave(pen, samples, width, wave - 4);
	pen.fillStyle = dark ? "#9aa8bf" : "#4d5b73";
	drawRuler(pen, samples.length / RATE, width, height);
}

function spectrogram(samples, count, dark) {
	const mel = new Mel();
	const hop = samples.length / count;
	const columns = Array.from({ length: count }, (_, i) => mel.column(samples, (i + 0.5) * hop));
	const top = Math.max(-2.5, ...columns.map((column) => Math.max(...column)));
	const image = new ImageData(count, ROWS);
	const ink = { top, colours: palette(dark) };
	columns.forEach((column, x) => paint(image, x, column, ink));
	return asCanvas(image);
}

function asCanvas(image) {
	const canvas = new OffscreenCanvas(image.width, image.height);
	canvas.getContext("2d").putImageData(image, 0, 0);
	return canvas;
}

function drawWave(pen, samples, width, height) {
	const peak = samples.reduce((most, v) => Math.max(most, Math.abs(v)), 0.02);
	for (let x = 0; x < width; x++) {
		const end = Math.ceil(((x + 1) * samples.length) / width);
		let low = 0;
		let high = 0;
		for (let i = Math.floor((x * samples.length) / width); i < end; i++) {
			low = Math.min(low, samples[i]);
			high = Math.max(high, samples[i]);
		}
		const scale = height / 2 / peak;
		pen.fillRect(x, height / 2 - high * scale, 1, Math.max(0.75, (high - low) * scale));
	}
}

function drawRuler(pen, seconds, width, height) {
	const token = width / seconds / TOKENS_A_SECOND;
	const step = token >= 2.5 ? 1 : TOKENS_A_SECOND; // ticks for seconds only, if those for tokens would run together
	for (let i = 0; i <= seconds * TOKENS_A_SECOND; i += step) {
		const second = i % TOKENS_A_SECOND === 0;
		pen.globalAlpha = second ? 0.9 : 0.4;
		pen.fillRect(Math.min(width - 1, i * token), height - RULER + 3, 1, second ? RULER - 3 : 3);
	}
}

/** The picture that grows while the microphone is open. What is not being recorded is drawn pale. */
export class LiveSpectrogram {
	#canvas;
	#mel = new Mel();
	#tail = new Float32Array(400); // samples that the next columns still need
	#columns = []; // {column, share}, one a CSS pixel: 10 ms
	#top = -1;
	#scheduled = false;

	constructor(canvas) {
		this.#canvas = canvas;
	}

	clear() {
		this.#columns = [];
		this.#tail = new Float32Array(400);
	}

	push(block, recording) {
		const samples = joined(this.#tail, block);
		let at = 200;
		for (; at + 200 <= samples.length; at += 160) {
			this.#columns.push({ column: this.#mel.column(samples, at), share: recording ? 1 : 0.4 });
		}
		this.#tail = samples.slice(at - 200);
		if (!this.#scheduled) requestAnimationFrame(() => this.#draw());
		this.#scheduled = true;
	}

	#draw() {
		this.#scheduled = false;
		const { pen, width, height } = fit(this.#canvas);
		this.#columns.splice(0, Math.max(0, this.#columns.length - width));
		if (!width || !this.#columns.length) return;
		const loudest = Math.max(...this.#columns.map(({ column }) => Math.max(...column)));
		this.#top += 0.2 * (Math.max(-0.5, loudest) - this.#top);
		const image = new ImageData(this.#columns.length, ROWS);
		const colours = palette(isDark());
		this.#columns.forEach(({ column, share }, x) => paint(image, x, column, { top: this.#top, colours, share }));
		pen.drawImage(asCanvas(image), 0, 0, image.width, height);
	}
}
