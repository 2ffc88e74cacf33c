// The API of this page's server.

import { Problem, WRONG } from "./problem.js";

const DOWN = "The server does not answer. Is qwen2-audio serve still running?";
const BROKEN = "The connection to the server was lost on the way.";
const READY_MS = 5000; // a server that is silent for longer counts as gone

async function refusal(response, key) {
	const { status, headers } = response;
	const { error } = await response.json().catch(() => ({}));
	const words = error?.message ?? (status === 413 ? "The proxy limits requests to 1 MB." : `The server answered ${status} and said nothing more.`);
	const wait = Number.parseFloat(headers.get("retry-after"));
	if (status === 401) return key ? WRONG : new Problem("key", "This server asks for an API key.");
	if (status === 502 || status === 504) return new Problem("down", `The proxy does not reach the server (${status}).`);
	if (status === 429 || (status === 503 && wait)) return new Problem("busy", words, wait || 2);
	if (error?.code === "context_length_exceeded" || error?.code === "too_many_clips" || status === 413) return new Problem("full", words);
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
		const { key } = this;
		if (key) headers.Authorization = `Bearer ${key}`;
		let response;
		try {
			response = await fetch(path, { ...options, headers });
		} catch (error) {
			throw error.name === "AbortError" ? error : new Problem("down", DOWN);
		}
		if (!response.ok) throw await refusal(response, key);
		return response;
	}

	/** Throws Problem "down" or "busy" unless the server takes requests. */
	async ready() {
		await this.#fetch("ready", { signal: AbortSignal.timeout(READY_MS) });
	}

	/** [{id, context, about, defaults, capabilities}], the context in tokens; capabilities as welcome.js shows them. */
	async models() {
		const { data } = await (await this.#fetch("v1/models")).json();
		return data.map(({ max_model_len: context, ...model }) => ({ ...model, context }));
	}

	/** The bytes of a sample clip. */
	async sample(url) {
		return (await this.#fetch(url)).arrayBuffer();
	}

	/** Streams an answer: {text}, then {finish}, then {usage}. Throws Problem or AbortError. */
	chat(request, signal) {
		const headers = { "Content-Type": "application/json" };
		const body = JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } });
		return this.#stream("v1/chat/completions", { headers, body, signal }, deltas);
	}

	/** Streams the transcript of a clip, as chat does an answer; of a long one {segment: {start, end, text}} before each text. */
	transcribe({ wav, file, name }, model, signal) {
		const body = new FormData();
		body.set("file", new Blob([wav ?? file]), name || "recording.wav");
		body.set("stream", "true");
		if (model) body.set("model", model);
		return this.#stream("v1/audio/transcriptions", { body, signal }, transcribed);
	}

	async *#stream(path, options, read) {
		const response = await this.#fetch(path, { method: "POST", ...options });
		try {
			for await (const data of events(response.body)) {
				if (data === "[DONE]") return;
				const chunk = JSON.parse(data);
				if (chunk.error) throw new Problem(chunk.error.code === "context_length_exceeded" ? "full" : "server", chunk.error.message);
				yield* read(chunk);
				if (chunk.type === "transcript.text.done") return;
			}
		} catch (error) {
			if (error instanceof Problem || error.name === "AbortError") throw error;
		}
		throw new Problem("broken", BROKEN);
	}
}

function* deltas({ choices: [choice], usage }) {
	if (choice?.delta?.content) yield { text: choice.delta.content };
	if (choice?.finish_reason) yield { finish: choice.finish_reason };
	if (usage) yield { usage };
}

function* transcribed({ type, delta, start, end, text, notes, finish_reason: finish = "stop", usage }) {
	if (type === "transcript.text.delta") yield { text: delta };
	else if (type === "transcript.text.segment") yield { segment: { start, end, text } };
	else yield { finish };
	if (usage?.seconds) yield { usage: { heard: [{ seconds: usage.seconds, notes }] } };
	else if (usage) yield { usage: { ...usage, prompt_tokens: usage.input_tokens, completion_tokens: usage.output_tokens } };
}
