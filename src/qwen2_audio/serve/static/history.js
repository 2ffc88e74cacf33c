// The list of conversations that are saved in this browser.

import { byId, element, icon } from "./element.js";

const when = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

export class History {
	#store;
	#removed = new Set(); // ids; an answer that ends later must not save them again
	#on; // {open(row), removed(id)}

	constructor(store, on) {
		this.#store = store;
		this.#on = on;
		if (!store.lasting) byId("kept").textContent = "This window saves nothing: conversations end with the page.";
	}

	async show(current) {
		const rows = (await this.#store.all()).sort((a, b) => b.changed - a.changed);
		byId("history").replaceChildren(...rows.map((row) => this.#row(row, row.id === current)));
	}

	async save(row) {
		if (this.#removed.has(row.id)) return;
		try {
			await this.#store.put(row);
		} catch {
			byId("kept").textContent = "The browser's storage is full: this was not saved. Delete older ones.";
		}
	}

	#row(row, current) {
		const open = element(
			"button",
			{ class: "open", "aria-current": current ? "true" : null, onclick: () => this.#on.open(row) },
			element("span", {}, row.title),
			element("small", { class: "measure" }, when.format(row.changed)),
		);
		const bin = element("button", { class: "icon bin", "aria-label": `Delete ${row.title}` }, icon("bin"));
		bin.onclick = async () => {
			if (!confirm(`Delete "${row.title}" from this browser?`)) return;
			this.#removed.add(row.id);
			await this.#store.remove(row.id);
			this.#on.removed(row.id);
		};
		return element("li", {}, open, bin);
	}
}
