// A clip on the page: its spectrogram, what was heard of it, and a button to play it.

import { element, icon } from "./element.js";
import { draw, widthOf } from "./spectrogram.js";
import { fromWav, secondsOf, spell } from "./wav.js";

/** Plays one clip at a time. */
export class Player {
	onchange = () => {};
	#audio = null;
	#view = null;

	get playing() {
		return this.#audio !== null;
	}

	toggle(view, wav) {
		const same = this.#view === view;
		this.stop();
		if (same) return;
		const url = URL.createObjectURL(new Blob([wav], { type: "audio/wav" }));
		this.#audio = new Audio(url);
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
		this.#view.at(audio.currentTime / (audio.duration || 1));
		requestAnimationFrame(() => this.#follow(audio));
	}
}

export class ClipView {
	#button;
	#canvas;
	#head;
	#caption;
	#clip;
	#name;

	/** clip: {wav, name, heard}; remove: leaves it out of the question; null once it is sent. */
	constructor(clip, player, remove = null) {
		this.#clip = clip;
		const length = spell(secondsOf(clip.wav));
		this.#name = clip.name || "the recording";
		this.#button = element("button", { class: "icon play", onclick: () => player.toggle(this, clip.wav) }, icon("play"));
		this.#canvas = element("canvas", { role: "img", "aria-label": `Spectrogram of ${this.#name}, ${length}` });
		this.#head = element("span", { class: "head", "aria-hidden": "true" });
		this.#caption = element("span", { class: "measure" }, length);
		const leaveOut = remove && element("button", { class: "icon", "aria-label": `Leave out ${this.#name}`, onclick: remove }, icon("close"));
		this.figure = element(
			"figure",
			{ class: "clip" },
			element("div", { class: "picture" }, this.#canvas, this.#head),
			element("figcaption", {}, this.#button, clip.name ? element("span", { class: "name" }, clip.name) : null, this.#caption, leaveOut),
		);
		this.figure.style.setProperty("--width", `${widthOf(secondsOf(clip.wav))}px`);
		this.playing(false);
		this.heard(clip.heard);
		new ResizeObserver(() => this.draw()).observe(this.#canvas);
		this.figure.redraw = () => this.draw();
	}

	/** Shows what the model heard, as the server says: {seconds, tokens, notes}. */
	heard(heard) {
		if (!heard) return;
		this.#caption.textContent = [`${spell(heard.seconds)}, ${heard.tokens} tokens heard`, ...(heard.notes ?? [])].join(". ");
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
		draw(this.#canvas, fromWav(this.#clip.wav));
	}
}
