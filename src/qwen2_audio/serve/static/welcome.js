// The empty page: what the checkpoint can do, in the server's words, and sample clips to try.

import { ClipView } from "./clip.js";
import { byId, element, wordButton } from "./element.js";
import { clipOf } from "./wav.js";

export class Welcome {
	#api;
	#player;
	#ask; // ask(question)
	#shown = "";

	constructor(api, player, ask) {
		this.#api = api;
		this.#player = player;
		this.#ask = ask;
	}

	/** capabilities: {summary, abilities: [{title, text}], limits, samples: [{title, question, url}]} */
	async show(capabilities) {
		const text = JSON.stringify(capabilities);
		if (text === this.#shown) return;
		this.#shown = text;
		const { summary, abilities, limits, samples } = capabilities;
		byId("summary").textContent = summary;
		byId("limits").textContent = limits;
		byId("abilities").replaceChildren(
			...abilities.map((one) => element("div", {}, element("dt", {}, one.title), element("dd", {}, one.text))),
		);
		const cards = await Promise.all(samples.map((sample) => this.#card(sample).catch(() => null)));
		if (cards.includes(null)) this.#shown = ""; // the next look at the server tries again
		byId("samples").replaceChildren(...cards.filter(Boolean));
	}

	async #card({ title, question, url }) {
		const clip = await clipOf(new File([await this.#api.sample(url)], title));
		const ask = () => this.#ask({ text: question, clips: [{ ...clip }] });
		const button = wordButton(question || "Let it answer", ask, "up");
		button.setAttribute("aria-label", `${title}: ${question || "let it answer"}`);
		return element("li", { title }, new ClipView(clip, this.#player, button).figure);
	}
}
