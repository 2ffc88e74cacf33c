// Turns on the page: questions with their clips, and answers. For their data see conversation.js.

import { ClipView } from "./clip.js";
import { element, icon } from "./element.js";

const ENDS = {
	length: "Cut off at the most tokens (Settings) or the end of the context.",
	stopped: "Stopped.",
	interrupted: "Interrupted.",
};

function article(kind, who) {
	const body = element("div", { class: "body" });
	return { body, node: element("article", { class: `turn ${kind}` }, element("h3", { class: "who" }, who), body) };
}

export class Question {
	constructor(turn, player) {
		const { node, body } = article("asked", "You");
		this.node = node;
		this.clips = turn.clips.map((clip) => new ClipView(clip, player));
		if (this.clips.length) body.append(element("div", { class: "clips" }, ...this.clips.map((view) => view.figure)));
		if (turn.text) body.append(element("p", { class: "question" }, turn.text));
	}
}

export class Answer {
	#text = element("p", { class: "answer" });
	#meta = element("p", { class: "meta measure" });
	#body;

	/** read: reads a text aloud; false where the browser cannot */
	constructor(turn, who, read) {
		this.turn = turn;
		const { node, body } = article("answered", who);
		this.node = node;
		this.#body = body;
		const button = read && element("button", { class: "icon", "aria-label": "Read this answer aloud", onclick: () => read(turn.text) }, icon("sound"));
		body.append(this.#text, element("div", { class: "below" }, this.#meta, button || ""));
		this.#text.textContent = turn.text;
		if (turn.end) this.finished();
		else this.waiting();
	}

	waiting() {
		this.node.dataset.state = "waiting";
		this.#text.replaceChildren(element("span", { class: "ticks", "aria-hidden": "true" }, ...Array.from({ length: 5 }, () => element("i"))));
		this.node.setAttribute("aria-busy", "true");
	}

	add(text) {
		if (this.node.dataset.state !== "writing") this.#text.replaceChildren();
		this.node.dataset.state = "writing";
		this.#text.append(text);
	}

	finished() {
		const { turn } = this;
		this.node.dataset.state = "done";
		this.node.removeAttribute("aria-busy");
		this.node.classList.toggle("silent", !turn.text);
		if (!turn.text) this.#text.replaceChildren(turn.end === "stop" ? "It answered nothing." : "");
		const end = ENDS[turn.end];
		this.#meta.replaceChildren(...[end && element("span", { class: "end" }, end), measures(turn)].filter(Boolean));
	}

	/** Shows an error; ways: nodes, or [label, function] for buttons. */
	failed(words, ways) {
		this.finished();
		this.node.dataset.state = "failed";
		const buttons = ways.map((way) => (way instanceof Node ? way : element("button", { class: "plain", onclick: way[1] }, way[0])));
		this.#body.append(element("div", { class: "trouble", role: "alert" }, element("p", {}, words), element("div", { class: "ways" }, ...buttons)));
	}
}

function measures({ timing, usage }) {
	if (!timing?.first) return null;
	const parts = [`first word ${Math.round(timing.first)} ms`];
	if (usage) {
		const { prompt_tokens: prompt, completion_tokens: completion, context } = usage;
		const rate = timing.span && completion > 1 ? ` at ${Math.round((1000 * (completion - 1)) / timing.span)}/s` : "";
		parts.push(`${completion} tokens${rate}`, `${prompt + completion} of ${context} positions`);
	}
	return element("span", { title: `sent ${timing.work.toFixed(1)} ms after you stopped` }, parts.join(" · "));
}
