// The microphone as a stream of 16 kHz mono blocks.

import { Problem } from "./problem.js";
import { Resampler } from "./resample.js";

// The model hears noises, too, so nothing suppresses them. Without echo cancellation, reading aloud would interrupt itself.
const CONSTRAINTS = { channelCount: 1, echoCancellation: true, noiseSuppression: false, autoGainControl: false };

const START_MS = 4000; // without a sound output, Firefox neither starts nor fails

function inWords(error) {
	switch (error.name) {
		case "NotAllowedError":
		case "SecurityError":
			return "The browser was not allowed to use the microphone. Allow it for this page (the lock next to the address), then press again.";
		case "NotFoundError":
		case "OverconstrainedError":
			return "No microphone was found. Plug one in, or drop a clip instead.";
		case "NotReadableError":
			return "The microphone gives no sound. Another program may hold it, or the browser lacks a sound output, which it needs, too.";
		default:
			return `The microphone could not be opened: ${error.message}`;
	}
}

export class Microphone {
	onblock = () => {};
	onlost = () => {};
	#stream = null;
	#context = null;
	#opening = null;

	get open() {
		return this.#stream !== null;
	}

	start() {
		if (this.open) return Promise.resolve();
		this.#opening ??= this.#start().finally(() => (this.#opening = null));
		return this.#opening;
	}

	async #start() {
		if (!navigator.mediaDevices?.getUserMedia) {
			throw new Problem("mic", "Browsers give the microphone to https pages and localhost only. Open this page as one of these, or drop a clip.");
		}
		let stream;
		try {
			stream = await navigator.mediaDevices.getUserMedia({ audio: CONSTRAINTS });
			this.#context ??= await Microphone.#prepare();
			await Promise.race([
				this.#context.resume(),
				new Promise((_, reject) => setTimeout(reject, START_MS, new DOMException("", "NotReadableError"))),
			]);
		} catch (error) {
			stream?.getTracks().forEach((track) => track.stop());
			throw new Problem("mic", inWords(error));
		}
		this.#connect(stream);
	}

	static async #prepare() {
		const context = new AudioContext({ latencyHint: "interactive" });
		await context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
		return context;
	}

	#connect(stream) {
		const resampler = new Resampler(this.#context.sampleRate);
		const tap = new AudioWorkletNode(this.#context, "tap", {
			numberOfOutputs: 0,
			channelCount: 1,
			channelCountMode: "explicit",
		});
		tap.port.onmessage = ({ data }) => {
			if (this.#stream === stream) this.onblock(resampler.push(data));
		};
		this.#context.createMediaStreamSource(stream).connect(tap);
		stream.getAudioTracks()[0].onended = () => {
			this.stop();
			this.onlost(new Problem("mic", "The microphone went away. Plug it in again, then press again."));
		};
		this.#stream = stream;
	}

	stop() {
		this.#stream?.getTracks().forEach((track) => track.stop());
		this.#stream = null;
		this.#context?.suspend();
	}
}
