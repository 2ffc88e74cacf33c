// The picture on the empty page: the spectrogram of a made-up bird, drawn by the same code as clips.

import { RATE } from "./resample.js";
import { draw } from "./spectrogram.js";

// Phrases: start in s, then notes of [times, length in s, from Hz, to Hz, wobble in Hz, its depth in Hz]
const SONG = [
	[0.25, [1, 0.22, 1700, 2300], [1, 0.16, 2550, 1900], [1, 0.34, 1950, 2050, 34, 320]],
	[1.35, [4, 0.07, 3200, 2000], [1, 0.4, 1400, 2700]],
	[2.6, [1, 0.55, 2250, 1600, 22, 230], [1, 0.12, 1300, 3200], [1, 0.12, 3200, 1400]],
	[3.8, [6, 0.05, 3800, 2700], [1, 0.3, 1800, 1950, 31, 260]],
	[5, [1, 0.3, 1500, 2500], [1, 0.5, 2100, 1700, 28, 290]],
];

function sing(samples, start, [length, from, to, wobble = 0, depth = 0], gain) {
	let phase = 0;
	for (let i = 0; i < length * RATE; i++) {
		const x = i / (length * RATE);
		phase += (2 * Math.PI * (from + (to - from) * x + depth * Math.sin((2 * Math.PI * wobble * i) / RATE))) / RATE;
		const swell = gain * Math.sin(Math.PI * x) ** 0.7;
		samples[Math.round(start * RATE) + i] += swell * (Math.sin(phase) + 0.13 * Math.sin(2 * phase));
	}
}

export function drawHero(canvas) {
	const samples = new Float32Array(6.4 * RATE);
	for (const [start, ...notes] of SONG) {
		let at = start;
		for (const [times, ...note] of notes) {
			for (let i = 0; i < times; i++, at += note[0] + 0.05) {
				sing(samples, at, note, 0.5);
				sing(samples, at + 0.11, note, 0.06); // an echo from the trees
			}
		}
	}
	const redraw = () => draw(canvas, samples, 0);
	new ResizeObserver(redraw).observe(canvas);
	document.addEventListener("themechange", redraw);
}
