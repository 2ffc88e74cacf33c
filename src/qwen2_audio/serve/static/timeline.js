// A long transcript: where its segments lie in the sound, to play from there, to search, and to save as a file.

import { element, iconButton, wordButton } from "./element.js";

const two = (number) => `${number}`.padStart(2, "0");

/** "1:02:03"; with a point, as subtitles have it: "01:02:03.500" */
function clock(seconds, point) {
	const ms = Math.round(1000 * seconds);
	const [h, m, s] = [ms / 3600000, (ms / 60000) % 60, (ms / 1000) % 60].map(Math.floor);
	if (point) return `${two(h)}:${two(m)}:${two(s)}${point}${`${ms % 1000}`.padStart(3, "0")}`;
	return `${h ? `${h}:${two(m)}` : m}:${two(s)}`;
}

const cue = ({ start, end, text }, point) => `${clock(start, point)} --> ${clock(end, point)}\n${text}\n`;
const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
const escaped = (segment) => ({ ...segment, text: segment.text.replace(/[&<>]/g, (sign) => ESCAPES[sign]) });
const FILES = {
	srt: (all) => all.map((segment, i) => `${i + 1}\n${cue({ ...segment, text: segment.text.replaceAll("-->", "->") }, ",")}\n`).join(""),
	vtt: (all) => `WEBVTT\n\n${all.map((segment) => cue(escaped(segment), ".")).join("\n")}`,
	txt: (all) => all.map(({ text }) => `${text}\n`).join(""),
};

export class Timeline {
	rows = element("ol", { class: "segments" });
	#strip = element("div", { class: "strip", "aria-hidden": "true", onclick: ({ offsetX }) => this.#play((offsetX / this.#strip.clientWidth) * this.#seconds) });
	#head = element("b", { hidden: true });
	#stop;
	#segments = [];
	#seconds; // of the sound, as far as it is known
	#clip;
	#player;

	/** clip: {wav or file, name, heard}, as clip.js has it */
	constructor(clip, player) {
		this.#clip = clip;
		this.#player = player;
		this.#seconds = clip.heard?.seconds ?? 0;
		this.#stop = iconButton("Stop", "stop", () => player.stop());
		this.#stop.hidden = true;
		this.#strip.append(this.#head);
		const search = element("input", { type: "search", placeholder: "Search", "aria-label": "Search the transcript", oninput: () => this.#search(search.value) });
		const files = Object.keys(FILES).map((kind) => wordButton(kind.toUpperCase(), () => this.#save(kind)));
		this.node = element("div", { class: "timeline" }, this.#strip, element("p", { class: "tools" }, search, this.#stop, ...files), this.rows);
	}

	add({ start, end, text }) {
		const segment = { start, end, text: text.replace(/\s+/g, " ").trim() };
		const mark = element("i");
		this.#segments.push(segment);
		this.#seconds = Math.max(this.#seconds, end);
		this.#strip.style.setProperty("--all", this.#seconds);
		mark.style.setProperty("--from", start);
		mark.style.setProperty("--for", end - start);
		this.#strip.append(mark);
		const play = { type: "button", disabled: !this.#sound, onclick: () => this.#play(start) };
		this.rows.append(element("li", {}, element("button", play, element("span", { class: "measure" }, clock(start)), segment.text)));
	}

	get #sound() {
		return this.#clip.wav ?? this.#clip.file;
	}

	#play(from) {
		if (this.#sound) this.#player.play(this, this.#sound, from);
	}

	playing(on) {
		this.#stop.hidden = this.#head.hidden = !on;
		if (!on) this.#mark(-1);
	}

	at(_, second) {
		this.#head.style.setProperty("--from", second);
		this.#mark(this.#segments.findLastIndex(({ start }) => start <= second));
	}

	#mark(number) {
		this.rows.querySelector("[aria-current]")?.removeAttribute("aria-current");
		this.rows.children[number]?.setAttribute("aria-current", "true");
	}

	#search(words) {
		const wanted = words.trim().toLowerCase();
		this.#segments.forEach(({ text }, i) => (this.rows.children[i].hidden = !text.toLowerCase().includes(wanted)));
	}

	#save(kind) {
		const href = URL.createObjectURL(new Blob([FILES[kind](this.#segments)], { type: "text/plain" }));
		element("a", { href, download: `${(this.#clip.name || "recording").replace(/\.\w+$/, "")}.${kind}` }).click();
		setTimeout(() => URL.revokeObjectURL(href), 60000);
	}
}
