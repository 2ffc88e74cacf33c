// Turns on the page: questions with their clips, answers, and what went wrong. For their data see conversation.js.

import { ClipView } from "./clip.js";
import { element, failure, icon, iconButton, wordButton } from "./element.js";
import { Timeline } from "./timeline.js";

const ENDS = {
	length: "Cut off at the most tokens (Settings) or the end of the context.",
	stopped: "Stopped.",
	interrupted: "Interrupted.",
};
const TITLES = {
	down: "No connection",
	broken: "The answer broke off",
	busy: "The server is busy",
	full: "Too much at once",
	key: "An API key is needed",
	wrong: "Wrong API key",
	left: "Not answered to the end",
	server: "No answer",
};
const COPIED_MS = 1600;

function article(kind, who) {
	const body = element("div", { class: "body" });
	return { body, node: element("article", { class: `turn ${kind}` }, element("h3", { class: "who" }, who), body) };
}

export class Question {
	/** transcribe(clip): asks for a clip's transcript */
	constructor(turn, player, transcribe) {
		const { node, body } = article("asked", "You");
		this.node = node;
		this.clips = turn.clips.map((clip) => {
			const actions = turn.task === "transcribe" ? [] : [wordButton("Transcribe", () => transcribe(clip), "text")];
			return new ClipView(clip, player, ...actions);
		});
		if (this.clips.length) body.append(element("div", { class: "clips" }, ...this.clips.map((view) => view.figure)));
		if (turn.text) body.append(element("p", { class: "question" }, turn.text));
	}
}

export class Answer {
	#text = element("p", { class: "answer" });
	#end = element("p", { class: "end" });
	#numbers = element("p", { class: "measure" });
	#details;
	#page;
	#clip;
	#timeline = null;
	#trouble = null;

	/** page: see app.js; clip: the question's first */
	constructor(turn, page, clip) {
		this.turn = turn;
		this.#page = page;
		this.#clip = clip;
		const { reader } = page;
		const { node, body } = article("answered", turn.model ?? "Answer");
		this.node = node;
		const copy = iconButton("Copy this answer", "copy", () => this.#copy(copy));
		const read = reader.possible && iconButton("Read this answer aloud", "sound", () => (reader.cancel(), reader.push(turn.text), reader.finish()));
		this.#details = element("details", { open: page.settings.values.numbers }, element("summary", {}, "Details"), this.#numbers);
		this.#details.ontoggle = () => page.settings.set("numbers", this.#details.open); // later answers open as this one
		body.append(this.#text, element("div", { class: "below" }, copy, read || "", this.#end, this.#details));
		if (turn.end) this.finished();
		else this.waiting();
	}

	waiting() {
		this.#trouble?.remove();
		this.#timeline?.node.replaceWith(this.#text);
		this.#timeline = null;
		this.node.hidden = false;
		this.node.dataset.state = "waiting";
		this.#text.replaceChildren(element("span", { class: "ticks", "aria-hidden": "true" }, ...Array.from({ length: 5 }, () => element("i"))));
		this.node.setAttribute("aria-busy", "true");
	}

	add(text) {
		if (this.node.dataset.state !== "writing") this.#text.replaceChildren();
		this.node.dataset.state = "writing";
		this.#text.append(text);
	}

	/** A part of a long transcript. */
	segment(segment) {
		if (!this.#timeline) this.#text.replaceWith((this.#timeline = new Timeline(this.#clip, this.#page.player)).node);
		this.node.dataset.state = "writing";
		this.#timeline.add(segment);
	}

	finished() {
		const { turn } = this;
		if (!this.#timeline) turn.segments?.forEach((segment) => this.segment(segment));
		this.node.dataset.state = "done";
		this.node.removeAttribute("aria-busy");
		this.#text.textContent = turn.text || (turn.end === "stop" ? "It answered nothing." : "");
		this.#end.textContent = ENDS[turn.end] ?? "";
		this.#numbers.textContent = numbersOf(turn);
		this.#details.hidden = !this.#numbers.textContent;
		this.node.classList.toggle("silent", !turn.text);
	}

	/** Shows what went wrong, below what had come until then; ways: nodes that lead on. */
	failed({ kind, words }, ways) {
		this.finished();
		this.node.dataset.state = "failed";
		this.node.hidden = !this.turn.text; // the model did not say that
		this.#trouble?.remove();
		const title = TITLES[kind === "server" && this.turn.text ? "broken" : kind];
		this.#trouble = failure(element("b", {}, title), element("p", {}, words || ""), ways.length ? element("div", { class: "ways" }, ...ways) : null);
		this.node.after(this.#trouble);
		this.#trouble.scrollIntoView({ block: "nearest" });
	}

	async #copy(button) {
		try {
			await navigator.clipboard.writeText(this.turn.text);
		} catch {
			getSelection().selectAllChildren(this.#timeline?.rows ?? this.#text); // a page that is neither https nor local has no clipboard
			document.execCommand("copy");
		}
		this.#page.say("Copied.");
		button.replaceChildren(icon("check"));
		setTimeout(() => button.replaceChildren(icon("copy")), COPIED_MS);
	}
}

/** What developers want to know of an answer. */
function numbersOf({ timing, usage }) {
	if (!timing?.first) return "";
	const parts = [`first word ${Math.round(timing.first)} ms`];
	if (usage?.completion_tokens >= 0) {
		const { prompt_tokens: prompt, completion_tokens: completion, context, heard = [] } = usage;
		const rate = timing.span && completion > 1 ? ` at ${Math.round((1000 * (completion - 1)) / timing.span)}/s` : "";
		parts.push(`${completion} tokens${rate}`, `${prompt + completion} of ${context} positions`);
		const sound = heard.reduce((sum, clip) => sum + clip.tokens, 0);
		if (sound) parts.push(`${sound} of sound`);
	}
	return [...parts, `sent after ${timing.work.toFixed(1)} ms`].join(" · ");
}
