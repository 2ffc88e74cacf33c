// The list of conversations that are saved in this browser, which all its tabs share.

import { byId, element, iconButton } from "./element.js";

const when = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

export class History {
	#store;
	#removed = new Set(); // ids; an answer that ends later must not save them again
	#on; // {open(row), removed(id), elsewhere(row): another tab has saved it}
	#tabs = new BroadcastChannel("qwen2-audio");
	#current = "";

	constructor(store, on) {
		this.#store = store;
		this.#on = on;
		if (!store.lasting) byId("kept").textContent = "This window saves nothing: conversations end with the page.";
		this.#tabs.onmessage = async ({ data: { id, removed } }) => {
			if (removed) this.#forget(id);
			this.show(this.#current);
			const row = id === this.#current && !removed && (await store.get(id));
			if (row) on.elsewhere(row);
		};
	}

	async show(current) {
		this.#current = current;
		const rows = (await this.#store.all()).sort((a, b) => b.changed - a.changed);
		byId("history").replaceChildren(...rows.map((row) => this.#row(row, row.id === current)));
	}

	/** Saves a conversation; tell: other tabs, too. */
	async save(conversation, tell) {
		const { row, changed: known } = conversation;
		if (this.#removed.has(row.id)) return;
		conversation.changed = row.changed;
		try {
			conversation.id = await this.#store.put(row, known);
		} catch {
			byId("kept").textContent = "The browser's storage is full: this was not saved. Delete older ones.";
			return;
		}
		if (tell) this.#tabs.postMessage({ id: conversation.id });
	}

	#forget(id) {
		this.#removed.add(id);
		this.#on.removed(id);
	}

	#row(row, current) {
		const open = element(
			"button",
			{ class: "open", "aria-current": current ? "true" : null, onclick: () => this.#on.open(row) },
			element("span", {}, row.title),
			element("small", { class: "measure" }, when.format(row.changed)),
		);
		const bin = iconButton(`Delete ${row.title}`, "bin", async () => {
			if (!confirm(`Delete "${row.title}" from this browser?`)) return;
			await this.#store.remove(row.id);
			this.#tabs.postMessage({ id: row.id, removed: true });
			this.#forget(row.id);
		});
		bin.classList.add("bin");
		return element("li", {}, open, bin);
	}
}
