// The settings sheet, and the theme.

import { byId, element } from "./element.js";
import { saveSettings } from "./store.js";

export class Settings {
	#sheet = byId("settings");
	#form = this.#sheet.querySelector("form");

	/** values: as store.js loads them, changed in place; changed(name): called after each. */
	constructor(values, changed) {
		this.values = values;
		for (const field of this.#form.elements) {
			if (field.name) field.value = values[field.name] ?? "";
		}
		this.#form.addEventListener("input", ({ target }) => {
			if (!target.name || !target.validity.valid) return;
			values[target.name] = target.value;
			saveSettings(values);
			if (target.name === "theme") this.#applyTheme();
			changed(target.name);
		});
		byId("open-settings").onclick = () => this.#sheet.showModal();
		this.#sheet.addEventListener("click", ({ target }) => target === this.#sheet && this.#sheet.close()); // outside the form
		matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.dispatchEvent(new Event("themechange")));
	}

	set(name, value) {
		this.values[name] = value;
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

	#applyTheme() {
		if (this.values.theme) document.documentElement.dataset.theme = this.values.theme;
		else delete document.documentElement.dataset.theme;
		document.dispatchEvent(new Event("themechange"));
	}
}
