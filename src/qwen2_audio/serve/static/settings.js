// The settings sheet, and the theme.

import { byId, element } from "./element.js";
import { WRONG } from "./problem.js";
import { loadSettings, onSettings, saveSettings } from "./store.js";

const KEY_WORDS = { up: "The server takes it.", wrong: WRONG.message, key: "This server asks for a key." };

export class Settings {
	#sheet = byId("settings");
	#form = this.#sheet.querySelector("form");
	#use;

	/** values: as store.js loads them, changed in place; changed(name): called after each; use(key): the server's state with it. */
	constructor(values, changed, use) {
		this.values = values;
		this.#use = use;
		this.#fill();
		this.#form.addEventListener("input", ({ target }) => {
			if (!target.name || target.name === "key" || !target.validity.valid) return;
			values[target.name] = target.value;
			saveSettings(values);
			if (target.name === "theme") this.#applyTheme();
			changed(target.name);
		});
		const { key } = this.#form.elements;
		key.onchange = () => this.#tryKey(key);
		key.onkeydown = (event) => {
			if (event.key !== "Enter") return;
			event.preventDefault(); // the sheet stays, to say whether the server takes it
			key.blur();
		};
		byId("open-settings").onclick = () => this.open();
		onSettings(() => this.#reread());
		this.#sheet.addEventListener("click", ({ target }) => target === this.#sheet && this.#sheet.close()); // outside the form
		matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("themechange")));
	}

	/** Opens the sheet, at the field `name` if there is one. */
	open(name) {
		this.#sheet.showModal();
		this.#form.elements[name]?.focus();
	}

	#fill() {
		for (const field of this.#form.elements) if (field.name) field.value = this.values[field.name] ?? "";
	}

	/** Another tab has changed them. */
	#reread() {
		const { key } = this.values;
		Object.assign(this.values, loadSettings());
		this.#fill();
		this.#applyTheme();
		if (this.values.key !== key) this.#use(this.values.key);
	}

	set(name, value) {
		this.values[name] = value;
		if (name in this.#form.elements) this.#form.elements[name].value = value;
		saveSettings(this.values);
	}

	/** What the server serves; `model` is the chosen one, as api.js gives it. */
	models(models) {
		const { elements } = this.#form;
		elements.model.replaceChildren(...models.map(({ id }) => element("option", {}, id)));
		this.model = models.find(({ id }) => id === this.values.model) ?? models[0];
		elements.model.value = this.values.model = this.model.id;
		for (const name of ["temperature", "top_p", "max_tokens"]) elements[name].placeholder = this.model.defaults[name] ?? "";
	}

	/** The request's fields: only what was chosen. */
	request() {
		const { values } = this;
		const fields = {};
		for (const name of ["temperature", "top_p", "seed"]) if (values[name] !== "") fields[name] = Number(values[name]);
		if (values.max_tokens !== "") fields.max_completion_tokens = Number(values.max_tokens);
		return fields;
	}

	async #tryKey(field) {
		const state = await this.#use(field.value.trim());
		byId("key-words").textContent = KEY_WORDS[state] ?? "The server does not answer.";
		field.setAttribute("aria-invalid", state !== "up");
	}

	#applyTheme() {
		if (this.values.theme) document.documentElement.dataset.theme = this.values.theme;
		else delete document.documentElement.dataset.theme;
		document.dispatchEvent(new Event("themechange"));
	}
}
