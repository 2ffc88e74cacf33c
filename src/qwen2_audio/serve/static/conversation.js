// One conversation: sends questions, streams answers onto the page, shows failures; can be saved and resumed.

import { element, wordButton } from "./element.js";
import { WRONG } from "./problem.js";
import { newId } from "./store.js";
import { Answer, Question } from "./turns.js";
import { base64 } from "./wav.js";

// A turn is {role: "user", text, task, clips: [{wav, file, name, heard, long, parts}]}, task: "transcribe" or none, or
// {role: "assistant", text, segments, end, model, timing, usage, failure: {kind, words}}, segments: of a long transcript,
// [{start, end, text}], end: "stop" | "length" | "stopped" | "interrupted" | "failed", or null while it is being written.

const SAVE_MS = 2000; // between two saves of an answer that is being written
const LEFT = { kind: "left", words: "The page was closed or loaded again before the answer was complete." };

const encoded = new WeakMap(); // clip -> base64: each question sends all clips of the conversation again

// A long clip is heard once, when it is transcribed or asked about in parts; later questions go with what was said then.
const heard = ({ clips }, turns) => clips.filter(({ long, parts }) => !long && !(parts && clips !== turns.at(-2).clips));
const isGone = ({ clips }) => clips.some(({ long, file }) => long && !file);

function contentOf(question, turns) {
	const { text } = question;
	const parts = heard(question, turns).map((clip) => {
		if (!encoded.has(clip)) encoded.set(clip, base64(clip.wav ?? clip.file));
		return { type: "input_audio", input_audio: { data: encoded.get(clip), format: "wav" } };
	});
	if (!parts.length) return text;
	return text ? [...parts, { type: "text", text }] : parts;
}

/** Questions and answers up to the last question of `turns`, which has no answer yet; without earlier ones that failed. */
function pairsOf(turns) {
	const last = turns.length - 2;
	const pairs = turns.slice(0, last).flatMap((turn, i) => (i % 2 ? [] : [[turn, turns[i + 1]]]));
	return [...pairs.filter(([, { text, end }]) => text || end !== "failed"), [turns[last], { text: "" }]];
}

/** The request's messages. */
function messagesOf(turns, system) {
	const messages = system ? [{ role: "system", content: system }] : [];
	for (const [question, { text }] of pairsOf(turns)) {
		messages.push({ role: "user", content: contentOf(question, turns) });
		if (text) messages.push({ role: "assistant", content: text });
	}
	return messages;
}

/** `words` about "Clip 3" of the request, with the clip's name. */
function named(words, turns, { task, clips }) {
	const sent = task ? clips : pairsOf(turns).flatMap(([question]) => heard(question, turns));
	return words.replace(/^Clip (\d+)/, (clip, number) => sent[number - 1]?.name || clip);
}

export class Conversation {
	id = newId();
	changed = 0; // when this tab last read or saved it, in ms
	turns = [];
	#page; // see app.js
	#running = null; // {controller, answer}
	#waiting = 0; // timer of the countdown
	#saved = 0; // when, in ms

	constructor(page, saved = null) {
		this.#page = page;
		page.list.replaceChildren();
		if (!saved) return;
		this.id = saved.id;
		this.changed = saved.changed;
		this.turns = saved.turns;
		for (let i = 0; i < this.turns.length; i += 2) this.#restore(this.turns[i], this.turns[i + 1], i + 2 === this.turns.length);
	}

	get answering() {
		return this.#running !== null;
	}

	/** As store.js saves it. */
	get row() {
		const [{ task, clips }] = this.turns;
		const title = task ? `Transcript of ${clips[0].name || "a recording"}` : (this.turns.find((turn) => turn.text)?.text.slice(0, 80) ?? "Clip");
		const saved = (clip) => (clip.long ? { ...clip, file: null } : clip); // each save would write all of a long file
		const turns = this.turns.map((turn) => (turn.clips ? { ...turn, clips: turn.clips.map(saved) } : turn));
		return { id: this.id, title, changed: Date.now(), turns };
	}

	/** question: {text, clips, task}; since: when the user finished it, by performance.now(). */
	ask(question, since = performance.now()) {
		this.stop("interrupted");
		for (const old of this.#page.list.querySelectorAll(".ways")) old.remove();
		const turn = { ...question, role: "user" };
		const answer = { role: "assistant", text: "", end: null, timing: null, usage: null };
		this.turns.push(turn, answer);
		const stream = this.#start(turn, answer, since); // the request is sent before anything is drawn
		return this.#follow(stream, this.#show(turn, answer));
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
		const { list, player, transcribe } = this.#page;
		const question = new Question(turn, player, transcribe);
		const reply = new Answer(answer, this.#page, turn.clips[0]);
		list.append(question.node, reply.node);
		return { turn, question, answer, reply };
	}

	#restore(turn, answer, last) {
		if (!answer.end) Object.assign(answer, { end: "failed", failure: LEFT });
		const views = this.#show(turn, answer);
		if (answer.end === "failed") views.reply.failed(answer.failure ?? { kind: "left" }, last && !isGone(turn) ? [wordButton("Ask again", () => this.#retry(views))] : []);
	}

	#start(turn, answer, since) {
		const { api, settings } = this.#page;
		const controller = new AbortController();
		const { model, system } = settings.values;
		answer.model = model.split("/").at(-1) || "Answer";
		const deltas =
			turn.task === "transcribe"
				? api.transcribe(turn.clips[0], model, controller.signal)
				: api.chat({ model: model || undefined, messages: messagesOf(this.turns, system), long: turn.clips.some(({ parts }) => parts) ? "parts" : undefined, ...settings.request() }, controller.signal);
		const first = deltas.next();
		first.catch(() => {}); // reported where it is awaited
		answer.timing = { work: performance.now() - since, first: null, span: 0 };
		this.#running = { controller, answer };
		return { deltas, first, since };
	}

	async #follow({ deltas, first, since }, views) {
		const { answer, reply } = views;
		const { changed, settings, reader, say } = this.#page;
		this.#save("begun");
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
			if (answer.timing.first === null) answer.text = ""; // nothing came, and what there is, is an earlier attempt's
			if (settings.values.aloud) reader.finish();
		}
		reply.finished();
		say(answer.text ? `Answer: ${answer.text}` : "No answer.");
		changed();
		this.#save("ended");
	}

	/** when: "begun", "midway" or "ended", of the answer */
	#save(when) {
		this.#saved = Date.now();
		this.#page.saved(this, when);
	}

	#apply({ text, segment, finish, usage }, views, since) {
		const { answer, reply } = views;
		const { timing } = answer;
		if (segment) {
			if (timing.first === null) answer.segments = [];
			answer.segments.push(segment);
			reply.segment(segment);
		}
		if (text) {
			if (timing.first === null) answer.text = ""; // of an attempt that failed
			const now = performance.now() - since;
			timing.first ??= now;
			timing.span = now - timing.first;
			answer.text += text;
			if (!answer.segments) {
				reply.add(text);
				if (this.#page.settings.values.aloud) this.#page.reader.push(text);
			}
			this.#page.changed();
			if (Date.now() - this.#saved > SAVE_MS) this.#save("midway");
		}
		if (finish) answer.end = finish;
		if (usage) this.#count(usage, views);
	}

	#count(usage, { turn, question, answer }) {
		answer.usage = { ...usage, context: this.#page.settings.model?.context };
		const first = usage.heard.length - turn.clips.length; // it lists the clips of the whole conversation
		question.clips.forEach((view, i) => view.heard((turn.clips[i].heard = usage.heard[first + i])));
	}

	#fail({ kind, message, wait }, views) {
		const { turn, answer, reply } = views;
		const words = named(message, this.turns, turn);
		this.#running = null;
		Object.assign(answer, { end: "failed", failure: { kind, words } });
		const retry = () => this.#retry(views);
		const ask = () => [keyForm(async (key) => ((await this.#page.key(key)) === "wrong" ? this.#fail(WRONG, views) : retry()))];
		const ways = {
			key: ask,
			wrong: ask,
			full: () => [wordButton("Ask it in a new conversation", () => this.#page.askAnew(views.turn))],
			busy: () => [this.#countdown(wait, retry), wordButton("Try now", retry)],
		}[kind];
		reply.failed(answer.failure, ways?.() ?? [wordButton("Try again", retry)]);
		this.#page.say(words);
		reply.node.nextSibling.querySelector("input")?.focus();
		this.#page.failed(kind);
		this.#page.changed();
		this.#save("ended");
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

	/** Asks again. What had come of the answer stays until the new one begins. */
	#retry(views) {
		clearTimeout(this.#waiting);
		Object.assign(views.answer, { end: null, usage: null, failure: null });
		const stream = this.#start(views.turn, views.answer, performance.now());
		views.reply.waiting();
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
