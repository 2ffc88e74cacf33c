// Clips as bytes: 16-bit mono WAV at 16 kHz, base64, and files that the browser decodes.

import { Problem } from "./problem.js";
import { RATE, resample } from "./resample.js";

const HEADER = 44;
const NO_SOUND = /^(image\/|text\/plain|application\/(pdf|zip|json))/; // all else the server may decode
export const LONGEST = 30; // seconds: the model's window
const TOLERANCE = 0.1; // seconds over it that a file may last: it is sent whole, and the server says what was heard

export function toWav(samples) {
	const bytes = new Uint8Array(HEADER + 2 * samples.length);
	// the WAV header of PCM, 1 channel, 16 bits a sample
	const words = [0x46464952, bytes.length - 8, 0x45564157, 0x20746d66, 16, 0x10001, RATE, 2 * RATE, 0x100002, 0x61746164, 2 * samples.length];
	new Uint32Array(bytes.buffer, 0, words.length).set(words);
	const pcm = new Int16Array(bytes.buffer, HEADER);
	samples.forEach((v, i) => (pcm[i] = Math.max(-32768, Math.min(32767, Math.round(v * 32768)))));
	return bytes;
}

export function fromWav(bytes) {
	const pcm = new Int16Array(bytes.buffer, bytes.byteOffset + HEADER);
	return Float32Array.from(pcm, (v) => v / 32768);
}

export const secondsOf = (bytes) => (bytes.length - HEADER) / 2 / RATE;

export function base64(bytes) {
	if (bytes.toBase64) return bytes.toBase64();
	let text = "";
	for (let i = 0; i < bytes.length; i += 0x6000) text += btoa(String.fromCharCode(...bytes.subarray(i, i + 0x6000)));
	return text; // 0x6000 is a multiple of 3: no padding inside
}

/** "3.2 s", "1 min 4 s" */
export function spell(seconds) {
	if (seconds < 60) return `${seconds.toFixed(1)} s`;
	return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
}

/** A file as mono samples at 16 kHz; null if this browser cannot decode it. Problem: no sound, no samples, too long. */
export async function decode(file) {
	let audio;
	if (NO_SOUND.test(file.type)) throw new Problem("file", `${file.name} is no sound. Choose a recording, such as wav, mp3, m4a or a video.`);
	if (!file.size) throw new Problem("file", `${file.name} is empty.`);
	try {
		// 48 kHz keeps the band of all common rates.
		audio = await new OfflineAudioContext(1, 1, 48000).decodeAudioData(await file.arrayBuffer());
	} catch {
		return null;
	}
	if (audio.length === 0) throw new Problem("file", `${file.name} holds no sound.`);
	if (audio.duration > LONGEST + TOLERANCE) {
		const length = spell(audio.duration);
		throw new Problem("file", `${file.name} is ${length} long; a clip holds ${LONGEST} s at most. Cut it, and drop the part that matters.`);
	}
	const mono = new Float32Array(audio.length);
	for (let c = 0; c < audio.numberOfChannels; c++) {
		audio.getChannelData(c).forEach((v, i) => (mono[i] += v / audio.numberOfChannels));
	}
	return resample(mono, audio.sampleRate).slice(0, Math.floor((LONGEST + TOLERANCE) * RATE)); // resampling rounds up
}

/** A file as a clip, see clip.js; as it is if only the server can decode it. Problem: see decode. */
export async function clipOf(file) {
	const samples = await decode(file);
	const bytes = samples ? { wav: toWav(samples) } : { wav: null, file: new Uint8Array(await file.arrayBuffer()) };
	return { ...bytes, name: file.name, heard: null };
}
