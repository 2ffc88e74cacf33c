// Voice activity detection: the level against an adaptive noise floor, with a minimum onset and a hang-over.

export const FRAME = 320; // samples: 20 ms at 16 kHz
const FRAME_MS = 20;
export const HANG_MS = 700; // of quiet end speech; people pause for breath
const MARGIN = 10; // dB above the floor that count as speech
const QUIETEST = -50; // dBFS: nothing below is speech, however silent the room
const RISE_QUIET = 0.06; // dB a frame towards a louder room, 3 dB/s
const RISE_SPEECH = 0.02; // the same during speech: a fan that starts is outgrown
const WHILE_READING = { margin: 8, onset: 160 }; // added while the page reads aloud

export class Vad {
	speaking = false;
	level = -100; // dBFS of the last frame, above 90 Hz
	floor = null; // dBFS of the room
	reading = false; // the page reads aloud, and must not interrupt itself
	#loud = 0; // ms above the threshold, in a leaky count
	#quiet = 0; // ms below it
	#before = [0, 0]; // the high pass's last input and output

	get threshold() {
		const margin = MARGIN + (this.reading ? WHILE_READING.margin : 0);
		return Math.max(QUIETEST, (this.floor ?? -60) + margin);
	}

	/** Takes a frame; returns "start" once speech is certain, "end" after the hang-over, else null. */
	push(frame) {
		this.level = this.#measure(frame);
		this.floor ??= Math.min(this.level, -45);
		const loud = this.level > this.threshold - (this.speaking ? 4 : 0);
		this.#adapt();
		return this.speaking ? this.#maybeEnd(loud) : this.#maybeStart(loud);
	}

	#measure(frame) {
		let [x0, y0] = this.#before;
		let sum = 0;
		for (const x of frame) {
			y0 = 0.965 * (y0 + x - x0); // one pole at 90 Hz: hum and rumble are not speech
			x0 = x;
			sum += y0 * y0;
		}
		this.#before = [x0, y0];
		return 10 * Math.log10(sum / frame.length + 1e-10);
	}

	#adapt() {
		const rise = this.speaking ? RISE_SPEECH : RISE_QUIET;
		if (this.level < this.floor) this.floor += 0.15 * (this.level - this.floor);
		else this.floor += Math.min(rise, this.level - this.floor);
		this.floor = Math.max(this.floor, -75);
	}

	#maybeStart(loud) {
		const onset = 100 + (this.reading ? WHILE_READING.onset : 0);
		this.#loud = loud ? this.#loud + FRAME_MS : Math.max(0, this.#loud - FRAME_MS / 2);
		if (this.#loud < onset) return null;
		this.speaking = true;
		this.#quiet = 0;
		return "start";
	}

	#maybeEnd(loud) {
		this.#quiet = loud ? 0 : this.#quiet + FRAME_MS;
		if (this.#quiet < HANG_MS) return null;
		this.speaking = false;
		this.#loud = 0;
		return "end";
	}
}
