// The next question: text, and clips from files or dropped on the page.

import { ClipView } from "./clip.js";
import { byId, element, failure, iconButton, wordButton } from "./element.js";
import { Problem } from "./problem.js";
import { LONGEST, clipOf } from "./wav.js";

export class Composer {
	#clips = [];
	#player;
	#on; // {send(question), transcribe(clip), changed()}
	#text = byId("text");

	constructor(player, on) {
		this.#player = player;
		this.#on = on;
		byId("composer").onsubmit = (event) => {
			event.preventDefault();
			this.send();
		};
		this.#text.oninput = () => on.changed();
		this.#text.onkeydown = (event) => {
			if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
			event.preventDefault();
			this.send();
		};
		byId("attach").onclick = () => byId("files").click();
		byId("files").onchange = ({ target }) => this.add([...target.files]).then(() => (target.value = ""));
		this.#acceptDrops();
	}

	get empty() {
		return !this.#clips.length && !this.#text.value.trim();
	}

	send() {
		const long = this.#clips.find((clip) => clip.long);
		if (long) this.problem(`${long.name} is longer than the ${LONGEST} s that are heard at once. Transcribe it, or ask about each part of it alone.`, wordButton("Ask each part", () => this.#askParts()));
		else if (!this.empty) this.#on.send(this.flush());
	}

	/** Each window of the long clips is asked, and the answers are put together. */
	async #askParts() {
		for (const clip of this.#clips.filter(({ long }) => long)) Object.assign(clip, { file: new Uint8Array(await clip.file.arrayBuffer()), long: false, parts: true });
		this.problem(null);
		this.send();
	}

	/** Empties the box but for long clips, and returns the question, with `spoken` as its last clip. */
	flush(spoken = null) {
		const question = { text: this.#text.value.trim(), clips: this.#clips.filter(({ long }) => !long) };
		if (spoken) question.clips.push(spoken);
		this.#clips = this.#clips.filter(({ long }) => long);
		this.#text.value = "";
		for (const row of [...byId("attachments").children]) if (!this.#clips.includes(row.clip)) row.remove();
		this.#on.changed();
		return question;
	}

	async add(files) {
		this.problem(null);
		const faults = [];
		for (const file of files) {
			try {
				this.#attach(await clipOf(file));
			} catch (fault) {
				if (!(fault instanceof Problem)) throw fault;
				faults.push(fault.message);
			}
		}
		if (faults.length) this.problem(faults.join(" "));
		else this.#text.focus();
	}

	/** Shows an error above the question box, with buttons that lead on; null removes it. */
	problem(words, ...ways) {
		const close = () => iconButton("Dismiss", "close", () => this.problem(null));
		byId("notice").replaceChildren(...(words ? [failure(element("p", {}, words), ...ways), close()] : []));
	}

	#attach(clip) {
		const remove = () => {
			this.#player.stop();
			this.#clips = this.#clips.filter((other) => other !== clip);
			row.remove();
			this.#text.focus();
			this.#on.changed();
		};
		const transcribe = () => (remove(), this.#on.transcribe(clip));
		const view = new ClipView(clip, this.#player, wordButton("Transcribe", transcribe, "text"));
		const row = element("li", {}, view.figure, iconButton(`Leave out ${clip.name}`, "close", remove));
		row.clip = clip;
		this.#clips.push(clip);
		byId("attachments").append(row);
		row.scrollIntoView({ block: "nearest" });
		this.#on.changed();
	}

	#acceptDrops() {
		const carries = (event) => event.dataTransfer?.types.includes("Files");
		const show = (on) => (byId("drop").hidden = !on);
		addEventListener("dragover", (event) => {
			if (!carries(event)) return;
			event.preventDefault();
			show(true);
		});
		addEventListener("dragleave", (event) => event.relatedTarget === null && show(false));
		addEventListener("drop", (event) => {
			if (!carries(event)) return;
			event.preventDefault();
			show(false);
			this.add([...event.dataTransfer.files]);
		});
	}
}
