// From the microphone to clips: push-to-talk (hold, or tap to begin and tap to send) and hands-free.

import { RATE, joined } from "./resample.js";
import { FRAME, HANG_MS, Vad } from "./vad.js";
import { LONGEST } from "./wav.js";

const TAP_MS = 300; // a shorter press records until the next one
const SHORTEST = 0.15; // seconds; less is a slip of the finger, and dropped
const WARM_MS = 15000; // the microphone stays open after use: the next press records at once
const PREROLL = 0.35 * RATE; // samples from before the detected start of speech
const TAIL_MS = 200; // of the quiet that ended speech, this much stays in the clip

export class Talk {
	mode = "off"; // "off" | "opening" | "held" | "latched" | "waiting" (hands-free) | "hearing" (hands-free)
	handsFree = false;
	muted = false; // hands-free does not listen while a clip plays
	#mic;
	#on; // changed(), block(samples, recording), begun(), clip(samples, stoppedAt), full(), problem(error)
	#vad = new Vad();
	#recorded = []; // blocks of the clip in the making
	#length = 0; // samples in them
	#rest = new Float32Array(0); // samples that do not fill a frame of the vad yet
	#pressed = 0; // when the button went down
	#down = false;
	#cooling = 0;

	constructor(mic, on) {
		this.#mic = mic;
		this.#on = on;
		mic.onblock = (block) => this.#push(block);
		mic.onlost = (problem) => this.#fail(problem);
	}

	get recording() {
		return this.mode === "held" || this.mode === "latched" || this.mode === "hearing";
	}

	get seconds() {
		return this.#length / RATE;
	}

	set reading(on) {
		this.#vad.reading = on;
	}

	async press() {
		if (this.mode === "latched") return this.#finish();
		if (this.mode === "hearing") {
			this.#down = true;
			return this.#change("held"); // what was recorded so far stays
		}
		if (this.#down || this.mode === "opening") return;
		this.#down = true;
		this.#pressed = performance.now();
		if (!(await this.#open())) return;
		this.#begin(this.#down ? "held" : "latched");
	}

	release() {
		if (!this.#down) return;
		this.#down = false;
		if (this.mode !== "held") return;
		if (performance.now() - this.#pressed < TAP_MS) this.#change("latched");
		else this.#finish();
	}

	cancel() {
		this.#down = false;
		if (this.recording) this.#idle();
	}

	async setHandsFree(on) {
		if (this.handsFree === on) return;
		this.handsFree = on;
		if (on && !(await this.#open())) return;
		this.#vad = new Vad();
		this.#idle();
	}

	async #open() {
		clearTimeout(this.#cooling);
		if (!this.#mic.open) this.#change("opening");
		try {
			await this.#mic.start();
			return true;
		} catch (problem) {
			this.#fail(problem);
			return false;
		}
	}

	#fail(problem) {
		this.handsFree = false;
		this.#down = false;
		this.#clear();
		this.#change("off");
		this.#on.problem(problem);
	}

	#begin(mode) {
		this.#clear();
		this.#change(mode);
		this.#on.begun();
	}

	#push(block) {
		if (this.mode === "held" || this.mode === "latched") this.#record(block);
		else if (this.handsFree && !this.muted) this.#listen(block);
		this.#on.block(block, this.recording);
	}

	#record(block) {
		this.#recorded.push(block);
		this.#length += block.length;
		if (this.#length < LONGEST * RATE) return;
		this.#finish();
		this.#on.full();
	}

	#listen(block) {
		if (this.mode === "hearing") this.#record(block);
		else this.#preroll(block);
		const samples = joined(this.#rest, block);
		let at = 0;
		for (; at + FRAME <= samples.length; at += FRAME) this.#hear(this.#vad.push(samples.subarray(at, at + FRAME)));
		this.#rest = samples.slice(at);
	}

	#preroll(block) {
		this.#recorded.push(block);
		this.#length += block.length;
		while (this.#length - this.#recorded[0].length > PREROLL) this.#length -= this.#recorded.shift().length;
	}

	#hear(event) {
		if (event === "start" && this.mode === "waiting") {
			this.#change("hearing");
			this.#on.begun();
		} else if (event === "end" && this.mode === "hearing") {
			this.#finish(HANG_MS - TAIL_MS);
		}
	}

	#finish(dropMs = 0) {
		const stoppedAt = performance.now();
		const samples = joined(...this.#recorded);
		const length = Math.min(samples.length - (dropMs * RATE) / 1000, LONGEST * RATE);
		this.#down = false;
		if (length > SHORTEST * RATE) this.#on.clip(samples.subarray(0, length), stoppedAt);
		this.#idle();
	}

	#idle() {
		this.#clear();
		this.#change(this.handsFree ? "waiting" : "off");
		clearTimeout(this.#cooling);
		if (!this.handsFree) this.#cooling = setTimeout(() => this.mode === "off" && this.#mic.stop(), WARM_MS);
	}

	#clear() {
		this.#recorded = [];
		this.#length = 0;
	}

	#change(mode) {
		this.mode = mode;
		this.#on.changed();
	}
}
