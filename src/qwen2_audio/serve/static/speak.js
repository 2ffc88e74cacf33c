// Reads an answer aloud by the browser's own voices, sentence by sentence while it streams.

const SENTENCE = /^[\s\S]*?[.!?…。！？\n](?=\s|$|[^\x00-\x7f])/;

export class Reader {
	onchange = () => {};
	#rest = "";
	#pending = 0;
	#turn = 0; // utterances of an earlier answer still report after cancel()

	get possible() {
		return "speechSynthesis" in window;
	}

	get speaking() {
		return this.#pending > 0;
	}

	push(text) {
		this.#rest += text;
		for (let match; (match = this.#rest.match(SENTENCE)); ) {
			this.#rest = this.#rest.slice(match[0].length);
			this.#say(match[0]);
		}
	}

	finish() {
		this.#say(this.#rest);
		this.#rest = "";
	}

	cancel() {
		this.#rest = "";
		this.#turn++;
		this.#pending = 0;
		if (this.possible) speechSynthesis.cancel();
		this.onchange();
	}

	#say(text) {
		if (!this.possible || !text.trim()) return;
		const utterance = new SpeechSynthesisUtterance(text.trim());
		const turn = this.#turn;
		if (/[\u4e00-\u9fff]/.test(text)) utterance.lang = "zh-CN";
		utterance.onend = utterance.onerror = () => {
			if (turn !== this.#turn) return;
			this.#pending--;
			this.onchange();
		};
		this.#pending++;
		speechSynthesis.speak(utterance);
		this.onchange();
	}
}
