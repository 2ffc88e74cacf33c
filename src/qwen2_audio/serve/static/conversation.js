// One conversation: sends questions, streams answers onto the page, shows errors; can be saved and resumed.

import { element } from "./element.js";
import { Answer, Question } from "./turns.js";
import { base64 } from "./wav.js";

// A turn is {role: "user", text, clips: [{wav, name, heard}]} or
// {role: "assistant", text, end, timing, usage}; end: "stop" | "length" | "stopped" | "interrupted" | "failed".

const encoded = new WeakMap(); // clip -> base64: each question sends all clips of the conversation again

function contentOf({ text, clips }) {
	const parts = clips.map((clip) => {
		if (!encoded.has(clip)) encoded.set(clip, base64(clip.wav));
		return { type: "input_audio", input_audio: { data: encoded.get(clip), format: "wav" } };
	});
	if (!parts.length) return text;
	return text ? [...parts, { type: "text", text }] : parts;
}

/** The request's messages for the last question of `turns`, without earlier questions that failed. */
function messagesOf(turns, system) {
	const messages = system ? [{ role: "system", content: system }] : [];
	turns.forEach((turn, i) => {
		const failed = turns[i + 1]?.end === "failed" && !turns[i + 1].text;
		if (turn.role === "assistant" && turn.text) messages.push({ role: "assistant", content: turn.text });
		if (turn.role === "user" && (!failed || i === turns.length - 2)) messages.push({ role: "user", content: contentOf(turn) });
	});
	return messages;
}

export class Conversation {
	id = `${Date.now()}-${Math.random()}`;
	turns = [];
	#page; // see app.js
	#running = null; // {controller, answer}
	#waiting = 0; // timer of the countdown

	constructor(page, saved = null) {
		this.#page = page;
		page.list.replaceChildren();
		if (!saved) return;
		this.id = saved.id;
		this.turns = saved.turns;
		for (let i = 0; i < this.turns.length; i += 2) this.#show(this.turns[i], this.turns[i + 1]);
	}

	get answering() {
		return this.#running !== null;
	}

	/** As store.js saves it. */
	get row() {
		const title = this.turns.find((turn) => turn.text)?.text.slice(0, 80) ?? "Clip";
		return { id: this.id, title, changed: Date.now(), turns: this.turns };
	}

	/** question: {text, clips}; since: when the user finished it, by performance.now(). */
	ask(question, since = performance.now()) {
		this.stop("interrupted");
		for (const old of this.#page.list.querySelectorAll(".ways")) old.remove();
		const turn = { ...question, role: "user" };
		const answer = { role: "assistant", text: "", end: null, timing: null, usage: null };
		this.turns.push(turn, answer);
		const stream = this.#start(answer, since); // the request is sent before anything is drawn
		const views = this.#show(turn, answer);
		return this.#follow(stream, views);
	}

	/** how: "stopped" or "interrupted" */
	stop(how) {
		clearTimeout(this.#waiting);
		const running = this.#running;
		this.#running = null;
		this.#page.reader.cancel(); // its onchange refreshes the page's buttons
		if (!running) return;
		running.answer.end = how;
		running.controller.abort();
	}

	#show(turn, answer) {
		const { list, player, reader } = this.#page;
		const read = (text) => {
			reader.cancel();
			reader.push(text);
			reader.finish();
		};
		const question = new Question(turn, player);
		const reply = new Answer(answer, answer.model ?? "Answer", reader.possible && read);
		list.append(question.node, reply.node);
		return { turn, question, answer, reply };
	}

	#start(answer, since) {
		const { api, settings } = this.#page;
		const controller = new AbortController();
		const { model, system } = settings.values;
		const messages = messagesOf(this.turns, system);
		answer.model = model.split("/").at(-1) || "Answer";
		const deltas = api.chat({ model: model || undefined, messages, ...settings.request() }, controller.signal);
		const first = deltas.next();
		first.catch(() => {}); // reported where it is awaited
		answer.timing = { work: performance.now() - since, first: null, span: 0 };
		this.#running = { controller, answer };
		return { deltas, first, since };
	}

	async #follow({ deltas, first, since }, views) {
		const { answer, reply } = views;
		const { changed, settings, reader, say } = this.#page;
		changed();
		try {
			for (let step = await first; !step.done; step = await deltas.next()) {
				if (this.#running?.answer !== answer) break; // stopped: drop what still arrives
				this.#apply(step.value, views, since);
			}
			answer.end ??= "stop";
		} catch (problem) {
			if (this.#running?.answer === answer) return this.#fail(problem, views);
		}
		if (this.#running?.answer === answer) {
			this.#running = null;
			if (settings.values.aloud) reader.finish();
		}
		reply.finished();
		say(answer.text ? `Answer: ${answer.text}` : "No answer.");
		changed();
		this.#page.saved(this.row);
	}

	#apply({ text, finish, usage }, views, since) {
		const { answer, reply } = views;
		const { timing } = answer;
		if (text) {
			const now = performance.now() - since;
			timing.first ??= now;
			timing.span = now - timing.first;
			answer.text += text;
			reply.add(text);
			if (this.#page.settings.values.aloud) this.#page.reader.push(text);
			this.#page.changed();
		}
		if (finish) answer.end = finish;
		if (usage) this.#count(usage, views);
	}

	#count(usage, { turn, question, answer }) {
		answer.usage = { ...usage, context: this.#page.settings.model?.context };
		const first = usage.heard.length - turn.clips.length; // it lists the clips of the whole conversation
		question.clips.forEach((view, i) => view.heard((turn.clips[i].heard = usage.heard[first + i])));
	}

	#fail(problem, views) {
		const { answer, reply } = views;
		this.#running = null;
		answer.end = "failed";
		const retry = () => this.#retry(views);
		const ways = {
			key: () => [keyForm((key) => this.#page.key(key).then(retry))],
			full: () => [["Ask it in a new conversation", () => this.#page.askAnew(views.turn)]],
			busy: () => [this.#countdown(problem.wait, retry), ["Try now", retry]],
		}[problem.kind];
		reply.failed(problem.message, ways?.() ?? [["Try again", retry]]);
		reply.node.querySelector("input")?.focus();
		this.#page.failed(problem);
		this.#page.changed();
		this.#page.saved(this.row);
	}

	#countdown(wait, retry) {
		const node = element("span", { class: "measure", "aria-hidden": "true" });
		const tick = (left) => {
			node.textContent = `Trying again in ${left} s`;
			this.#waiting = setTimeout(() => (left > 1 ? tick(left - 1) : retry()), 1000);
		};
		tick(Math.ceil(wait));
		return node;
	}

	#retry(views) {
		clearTimeout(this.#waiting);
		const { answer, reply } = views;
		Object.assign(answer, { text: "", end: null, usage: null });
		reply.node.querySelector(".trouble")?.remove();
		const stream = this.#start(answer, performance.now());
		reply.waiting();
		return this.#follow(stream, views);
	}
}

function keyForm(given) {
	const input = element("input", { type: "password", "aria-label": "API key", placeholder: "API key", autocomplete: "off", required: true });
	const onsubmit = (event) => {
		event.preventDefault();
		given(input.value.trim());
	};
	return element("form", { class: "key", onsubmit }, input, element("button", { class: "plain" }, "Use this key"));
}
