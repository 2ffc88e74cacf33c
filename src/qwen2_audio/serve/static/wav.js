// Clips as bytes: 16-bit mono WAV at 16 kHz, base64, and files that the browser decodes.

import { Problem } from "./problem.js";
import { RATE, resample } from "./resample.js";

const HEADER = 44;
const NO_SOUND = /^(image\/|text\/plain|application\/(pdf|zip|json))/; // all else the server may decode
export const LONGEST = 30; // seconds: the model's window
const TOLERANCE = 0.1; // seconds over it that a file may last: it is sent whole, and the server says what was heard
const MOST = LONGEST + TOLERANCE;
const SMALL = 1 << 20; // bytes: such a file is decoded whole, however long it is
const LARGE = 1 << 24; // bytes from which on a file of unknown length counts as long

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

/** "3.2 s", "1 min 4 s", "2 h 5 min" */
export function spell(seconds) {
	if (seconds < 60) return `${seconds.toFixed(1)} s`;
	const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60];
	return hours ? `${hours} h ${minutes} min` : `${minutes} min ${Math.floor(seconds % 60)} s`;
}

/** Seconds of a file by its header; NaN or infinite where this browser cannot tell. */
function lengthOf(file) {
	const audio = new Audio();
	const done = (resolve, seconds) => (URL.revokeObjectURL(audio.src), resolve(seconds));
	return new Promise((resolve) => {
		audio.onloadedmetadata = () => done(resolve, audio.duration);
		audio.onerror = () => done(resolve, NaN);
		audio.src = URL.createObjectURL(file);
	});
}

/** A file as sound of all its channels; null if this browser cannot decode it. */
async function decode(file) {
	try {
		// 48 kHz keeps the band of all common rates.
		return await new OfflineAudioContext(1, 1, 48000).decodeAudioData(await file.arrayBuffer());
	} catch {
		return null;
	}
}

function mixed(audio) {
	const mono = new Float32Array(audio.length);
	for (let c = 0; c < audio.numberOfChannels; c++) {
		audio.getChannelData(c).forEach((v, i) => (mono[i] += v / audio.numberOfChannels));
	}
	return resample(mono, audio.sampleRate).slice(0, Math.floor(MOST * RATE)); // resampling rounds up
}

/** A file as a clip, see clip.js; as it is if it is long, or only the server can decode it. Problem: it holds no sound. */
export async function clipOf(file) {
	const { name } = file;
	if (NO_SOUND.test(file.type)) throw new Problem("file", `${name} is no sound. Choose a recording, such as wav, mp3, m4a or a video.`);
	if (!file.size) throw new Problem("file", `${name} is empty.`);
	const seconds = file.size > SMALL ? await lengthOf(file) : NaN;
	const long = (heard) => ({ wav: null, file, name, heard, long: true });
	if (Number.isFinite(seconds) ? seconds > MOST : file.size > LARGE) return long(seconds > 0 ? { seconds } : null);
	const audio = await decode(file);
	if (!audio) return { wav: null, file: new Uint8Array(await file.arrayBuffer()), name, heard: null };
	if (audio.length === 0) throw new Problem("file", `${name} holds no sound.`);
	return audio.duration > MOST ? long({ seconds: audio.duration }) : { wav: toWav(mixed(audio)), name, heard: null };
}
