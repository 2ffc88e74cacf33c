// Hands the microphone's samples to the page, four render quanta (about 10 ms) at a time.

class Tap extends AudioWorkletProcessor {
	#block = new Float32Array(512);
	#filled = 0;

	process([input]) {
		const samples = input[0]; // the node mixes all channels down to one
		if (!samples) return true;
		this.#block.set(samples, this.#filled);
		this.#filled += samples.length;
		if (this.#filled === this.#block.length) {
			this.port.postMessage(this.#block, [this.#block.buffer]);
			this.#block = new Float32Array(512);
			this.#filled = 0;
		}
		return true;
	}
}

registerProcessor("tap", Tap);
