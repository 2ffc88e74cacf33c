// Any sample rate to 16 kHz: a Kaiser-windowed sinc; the output does not depend on how the input is divided.

export const RATE = 16000;
const CROSSINGS = 24; // zero crossings on each side
const STEPS = 256; // table entries per crossing
const ROLLOFF = 0.94; // the pass band's share of the lower Nyquist frequency
const BETA = 9; // about 90 dB of stop band

function bessel(x) {
	let sum = 1;
	for (let k = 1, term = 1; term > 1e-12 * sum; k++) sum += term *= (x / (2 * k)) ** 2;
	return sum;
}

function kernel() {
	const table = new Float32Array(CROSSINGS * STEPS + 2);
	for (let i = 0; i <= CROSSINGS * STEPS; i++) {
		const x = i / STEPS;
		const sinc = x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
		table[i] = (sinc * bessel(BETA * Math.sqrt(Math.max(0, 1 - (x / CROSSINGS) ** 2)))) / bessel(BETA);
	}
	return table;
}

export class Resampler {
	#table = kernel();
	#scale; // crossings per input sample
	#step; // input samples per output sample
	#half; // input samples on each side of an output sample
	#tail; // input that later output still needs
	#at; // where in `tail` the next output sample lies

	constructor(from, to = RATE) {
		this.#scale = ROLLOFF * Math.min(1, to / from);
		this.#step = from / to;
		this.#half = Math.ceil(CROSSINGS / this.#scale);
		this.#tail = new Float32Array(this.#half);
		this.#at = this.#half;
	}

	push(block) {
		const tail = joined(this.#tail, block);
		const ready = Math.ceil((tail.length - this.#half - this.#at) / this.#step);
		const out = new Float32Array(Math.max(0, ready));
		for (let i = 0; i < out.length; i++) out[i] = this.#sample(tail, this.#at + i * this.#step);
		const next = this.#at + out.length * this.#step;
		const gone = Math.max(0, Math.floor(next) - this.#half);
		this.#tail = tail.slice(gone);
		this.#at = next - gone;
		return out;
	}

	#sample(tail, at) {
		const first = Math.max(0, Math.ceil(at - this.#half));
		const last = Math.min(tail.length - 1, Math.floor(at + this.#half));
		let sum = 0;
		for (let k = first; k <= last; k++) {
			const x = Math.abs(at - k) * this.#scale * STEPS;
			const i = x | 0;
			if (i < CROSSINGS * STEPS) sum += tail[k] * (this.#table[i] + (x - i) * (this.#table[i + 1] - this.#table[i]));
		}
		return sum * this.#scale;
	}
}

export function joined(...blocks) {
	const all = new Float32Array(blocks.reduce((length, block) => length + block.length, 0));
	let at = 0;
	for (const block of blocks) {
		all.set(block, at);
		at += block.length;
	}
	return all;
}

/** All of `samples` at 16 kHz. */
export function resample(samples, from) {
	if (from === RATE) return samples;
	const length = Math.ceil((samples.length * RATE) / from);
	const resampler = new Resampler(from);
	const tail = new Float32Array(Math.ceil((2 * CROSSINGS * from) / RATE));
	return resampler.push(joined(samples, tail)).slice(0, length);
}
