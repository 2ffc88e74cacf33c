// An error in words for the user; `kind` decides what the page offers to do.

export class Problem extends Error {
	/** kind: see turns.js, or "mic", "file"; wait: seconds, if the server named them */
	constructor(kind, words, wait = null) {
		super(words);
		this.kind = kind;
		this.wait = wait;
	}
}

export const WRONG = new Problem("wrong", "The server does not accept this API key.");
