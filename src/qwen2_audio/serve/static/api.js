// The API of this page's server.

import { Problem } from "./problem.js";

const DOWN = "The server does not answer. Is qwen2-audio serve still running?";

async function refusal(response) {
	const body = await response.json().catch(() => ({}));
	const words = body.error?.message ?? (response.status === 413 ? "The proxy limits requests to 1 MB." : `The server answered ${response.status} and said nothing more.`);
	const code = body.error?.code;
	const wait = Number.parseFloat(response.headers.get("retry-after"));
	if (response.status === 401) return new Problem("key", "This server asks for an API key.");
	if (response.status === 429 || (response.status === 503 && wait)) return new Problem("busy", words, wait || 2);
	if (code === "context_length_exceeded" || code === "too_many_clips" || response.status === 413) return new Problem("full", words);
	return new Problem("server", words);
}

/** The `data:` payloads of a stream of server-sent events. */
async function* events(body) {
	const reader = body.pipeThrough(new TextDecoderStream()).getReader();
	let rest = "";
	try {
		for (;;) {
			const { value, done } = await reader.read();
			if (done) return;
			rest += value;
			const lines = rest.split(/\r?\n/);
			rest = lines.pop();
			for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
		}
	} finally {
		reader.cancel().catch(() => {});
	}
}

export class Api {
	key = "";

	async #fetch(path, options = {}) {
		const headers = { ...options.headers };
		if (this.key) headers.Authorization = `Bearer ${this.key}`;
		let response;
		try {
			response = await fetch(path, { ...options, headers });
		} catch (error) {
			throw error.name === "AbortError" ? error : new Problem("down", DOWN);
		}
		if (!response.ok) throw await refusal(response);
		return response;
	}

	/** [{id, context, about, defaults}], the context in tokens. */
	async models() {
		const { data } = await (await this.#fetch("v1/models")).json();
		return data.map(({ id, max_model_len: context, about, defaults }) => ({ id, context, about, defaults }));
	}

	/** Streams an answer: {text}, then {finish}, then {usage}. Throws Problem or AbortError. */
	async *chat(request, signal) {
		const response = await this.#fetch("v1/chat/completions", {
			method: "POST",
			headers: { "Content-Type": "application/json" },
			body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } }),
			signal,
		});
		try {
			for await (const data of events(response.body)) {
				if (data === "[DONE]") return;
				yield* deltas(JSON.parse(data));
			}
		} catch (error) {
			if (error instanceof Problem || error.name === "AbortError") throw error;
		}
		throw new Problem("broken", "The connection broke off; what came until then is above.");
	}
}

function* deltas(chunk) {
	if (chunk.error) throw new Problem(chunk.error.code === "context_length_exceeded" ? "full" : "server", chunk.error.message);
	const [choice] = chunk.choices;
	if (choice?.delta?.content) yield { text: choice.delta.content };
	if (choice?.finish_reason) yield { finish: choice.finish_reason };
	if (chunk.usage) yield { usage: chunk.usage };
}
