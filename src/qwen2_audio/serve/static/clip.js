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
	#canvas = null;
	#head = element("span", { class: "head", "aria-hidden": "true" });
	#length = element("span", { class: "measure" });
	#notes = element("ul", { class: "notes" });
	#clip;
	#name;

	/** clip: {wav, name, heard}, or {wav: null, file, name, heard} if the browser cannot decode it; actions: nodes below it. */
	constructor(clip, player, ...actions) {
		this.#clip = clip;
		this.#name = clip.name || "the recording";
		this.#button = element("button", { type: "button", class: "icon", onclick: () => player.toggle(this, clip.wav) });
		this.figure = element(
			"figure",
			{ class: "clip" },
			clip.wav ? this.#picture() : element("p", { class: "picture blind" }, "This browser cannot draw or play it. The server decodes it."),
			element(
				"figcaption",
				{},
				clip.wav ? this.#button : null,
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
