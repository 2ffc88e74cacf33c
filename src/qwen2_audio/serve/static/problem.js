// What went wrong, in words for the person in front of the page; `kind` lets the page offer the way out.

export class Problem extends Error {
	/** kind: see api.js, or "mic", "file"; wait: seconds, where the server named them */
	constructor(kind, words, wait = null) {
		super(words);
		this.kind = kind;
		this.wait = wait;
	}
}
