// The dot at the top: whether the server answers, asked every few seconds while the page is seen.

import { byId } from "./element.js";

const UP_MS = 5000; // between two looks at a server that answers
const DOWN_MS = 2000; // and at one that does not
const SETTLED = ["up", "key", "wrong"]; // nothing new to ask as long as the server is there
const WORDS = { key: "needs a key", wrong: "wrong key", down: "no connection", busy: "shutting down" }; // short, for phones

export class Status {
	#api;
	#found; // found(models): the server is there, for the first time or again
	#timer = 0;
	#looks = 0; // the answer to an older look counts no more

	constructor(api, found) {
		this.#api = api;
		this.#found = found;
		document.addEventListener("visibilitychange", () => document.hidden || this.look());
		addEventListener("online", () => this.look());
	}

	get state() {
		return byId("serving").dataset.state;
	}

	/** Looks at the server now; anew: asks for its models even if it was there before. Returns the state. */
	async look(anew = false) {
		clearTimeout(this.#timer);
		const look = ++this.#looks;
		let problem = null;
		try {
			await this.#api.ready();
			if (anew || !SETTLED.includes(this.state)) await this.#models(look);
		} catch (error) {
			problem = error;
		}
		if (look !== this.#looks) return this.state;
		if (problem) this.#show(problem.kind, WORDS[problem.kind] ?? problem.message);
		if (!document.hidden) this.#timer = setTimeout(() => this.look(), SETTLED.includes(this.state) ? UP_MS : DOWN_MS);
		return this.state;
	}

	async #models(look) {
		const models = await this.#api.models();
		if (look !== this.#looks) return;
		const { id, about } = this.#found(models);
		this.#show("up", id.split("/").at(-1));
		byId("serving").title = about;
	}

	#show(state, words) {
		byId("serving").dataset.state = state;
		if (byId("serving-text").textContent !== words) byId("serving-text").textContent = words; // it is read out
	}
}
