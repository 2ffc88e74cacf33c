// A clip on the page: its spectrogram, what was heard of it, and a button to play it.

import { element, icon } from "./element.js";
import { draw, widthOf } from "./spectrogram.js";
import { fromWav, secondsOf, spell } from "./wav.js";

// of a long clip: without its file, and with it
const LONG = ["This browser does not keep so long a file: drop it again to hear it.", "Too long for a question; all of it can be written down, with times."];

/** Plays one clip at a time. */
export class Player {
	onchange = () => {};
	#audio = null;
	#view = null;

	get playing() {
		return this.#audio !== null;
	}

	toggle(view, sound) {
		if (this.#view === view) this.stop();
		else this.play(view, sound);
	}

	/** sound: the bytes of a WAV file, or a File; from: seconds */
	play(view, sound, from = 0) {
		this.stop();
		this.#audio = new Audio(URL.createObjectURL(sound instanceof Blob ? sound : new Blob([sound], { type: "audio/wav" })));
		this.#audio.currentTime = from;
		this.#view = view;
		this.#audio.onended = () => this.stop();
		this.#audio.play().catch(() => this.stop());
		view.playing(true);
		this.onchange();
		this.#follow(this.#audio);
	}

	stop() {
		if (!this.#audio) return;
		this.#audio.pause();
		URL.revokeObjectURL(this.#audio.src);
		this.#audio = null;
		this.#view.playing(false);
		this.#view = null;
		this.onchange();
	}

	#follow(audio) {
		if (audio !== this.#audio) return;
		this.#view.at(audio.currentTime / (audio.duration || 1), audio.currentTime);
		requestAnimationFrame(() => this.#follow(audio));
	}
}

export class ClipView {
	#button;
	#canvas = null;
	#head = element("span", { class: "head", "aria-hidden": "true" });
	#length = element("span", { class: "measure" });
	#notes = element("ul", { class: "notes" });
	#clip;
	#name;

	/**
	 * clip: {wav, name, heard}, or {wav: null, file, name, heard} if the browser cannot decode it, with long: true and a File
	 * if it is longer than a question's clip may be; actions: nodes below it.
	 */
	constructor(clip, player, ...actions) {
		this.#clip = clip;
		this.#name = clip.name || "the recording";
		this.#button = element("button", { type: "button", class: "icon", onclick: () => player.toggle(this, clip.wav ?? clip.file) });
		this.figure = element(
			"figure",
			{ class: "clip" },
			clip.wav ? this.#picture() : element("p", { class: "picture blind" }, clip.parts ? "Each part was asked about alone." : clip.long ? LONG[clip.file ? 1 : 0] : "This browser cannot draw or play it. The server decodes it."),
			element(
				"figcaption",
				{},
				clip.wav || (clip.long && clip.file) ? this.#button : null,
				clip.name ? element("span", { class: "name", title: clip.name }, clip.name) : null,
				this.#length,
				...actions,
				this.#notes,
			),
		);
		this.playing(false);
		this.heard(clip.heard);
		this.figure.redraw = () => this.draw();
	}

	#picture() {
		const seconds = secondsOf(this.#clip.wav);
		this.#length.textContent = spell(seconds);
		this.#canvas = element("canvas", { role: "img", "aria-label": `Spectrogram of ${this.#name}, ${spell(seconds)}` });
		new ResizeObserver(() => this.draw()).observe(this.#canvas);
		const picture = element("div", { class: "picture" }, this.#canvas, this.#head);
		picture.style.setProperty("--width", `${widthOf(seconds)}px`);
		return picture;
	}

	/** Shows what the model heard, as the server says: {seconds, notes}. */
	heard(heard) {
		if (!heard) return;
		this.#length.textContent = spell(heard.seconds);
		this.#notes.replaceChildren(...(heard.notes ?? []).map((note) => element("li", {}, icon("info"), element("span", {}, note.replace(/^Clip \d+/, "This clip")))));
	}

	playing(on) {
		this.#button.replaceChildren(icon(on ? "stop" : "play"));
		this.#button.setAttribute("aria-label", `${on ? "Stop" : "Play"} ${this.#name}`);
		this.#head.hidden = !on;
	}

	at(share) {
		this.#head.style.setProperty("--at", share);
	}

	draw() {
		if (this.#canvas) draw(this.#canvas, fromWav(this.#clip.wav));
	}
}
