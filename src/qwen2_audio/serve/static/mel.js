// Log-mel columns as the model has them, but of 96 rows, not 128, and from a padded FFT: both are for the eye.

import { RATE } from "./resample.js";

export const ROWS = 96;
const WINDOW = 400;
const SIZE = 1024;
const HALF = SIZE / 2;

const toMel = (hz) => (hz < 1000 ? (3 * hz) / 200 : 15 + (27 * Math.log(hz / 1000)) / Math.log(6.4));
const toHz = (mel) => (mel < 15 ? (200 * mel) / 3 : 1000 * Math.exp(((mel - 15) * Math.log(6.4)) / 27));

function filters() {
	const top = toMel(RATE / 2);
	const edges = Array.from({ length: ROWS + 2 }, (_, i) => (toHz((top * i) / (ROWS + 1)) * SIZE) / RATE);
	return Array.from({ length: ROWS }, (_, row) => {
		const [low, mid, high] = edges.slice(row, row + 3);
		const first = Math.ceil(low);
		const weights = [];
		for (let bin = first; bin < high; bin++) {
			weights.push(Math.min((bin - low) / (mid - low), (high - bin) / (high - mid)) / (high - low));
		}
		return { first, weights };
	});
}

export class Mel {
	#filters = filters();
	#hann = Float32Array.from({ length: WINDOW }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / WINDOW));
	#cos = Float32Array.from({ length: HALF }, (_, i) => Math.cos((2 * Math.PI * i) / SIZE));
	#sin = Float32Array.from({ length: HALF }, (_, i) => Math.sin((2 * Math.PI * i) / SIZE));
	#re = new Float32Array(SIZE);
	#im = new Float32Array(SIZE);

	/** The column around sample `at`: ROWS values of log10 power, low frequencies first. */
	column(samples, at) {
		this.#re.fill(0);
		this.#im.fill(0);
		const start = Math.round(at) - WINDOW / 2;
		for (let i = 0; i < WINDOW; i++) this.#re[i] = (samples[start + i] ?? 0) * this.#hann[i];
		this.#fft();
		const out = new Float32Array(ROWS);
		this.#filters.forEach(({ first, weights }, row) => {
			let sum = 1e-10;
			for (let i = 0; i < weights.length; i++) {
				const bin = first + i;
				sum += weights[i] * (this.#re[bin] ** 2 + this.#im[bin] ** 2);
			}
			out[row] = Math.log10(sum);
		});
		return out;
	}

	#fft() {
		const re = this.#re;
		const im = this.#im;
		for (let i = 1, j = 0; i < SIZE; i++) {
			let bit = HALF;
			for (; j & bit; bit >>= 1) j ^= bit;
			j ^= bit;
			if (i < j) [re[i], re[j]] = [re[j], re[i]]; // the input is real: nothing to swap in `im`
		}
		for (let length = 2; length <= SIZE; length *= 2) {
			const half = length / 2;
			const stride = SIZE / length;
			for (let start = 0; start < SIZE; start += length) {
				for (let k = 0; k < half; k++) {
					const a = start + k;
					const b = a + half;
					const c = this.#cos[k * stride];
					const s = this.#sin[k * stride];
					const x = re[b] * c + im[b] * s;
					const y = im[b] * c - re[b] * s;
					re[b] = re[a] - x;
					im[b] = im[a] - y;
					re[a] += x;
					im[a] += y;
				}
			}
		}
	}
}
