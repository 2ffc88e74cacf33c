// DOM nodes in one expression.

/** element("button", {class: "x", onclick: f, "aria-label": "y"}, child, "text") */
export function element(name, properties = {}, ...children) {
	const node = document.createElement(name);
	for (const [key, value] of Object.entries(properties)) {
		if (key.startsWith("on")) node[key] = value;
		else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
	}
	node.append(...children.filter((child) => child !== null));
	return node;
}

export function icon(name) {
	const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
	const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
	use.setAttribute("href", `#i-${name}`);
	svg.setAttribute("aria-hidden", "true");
	svg.append(use);
	return svg;
}

/** A button with words on it. */
export const wordButton = (words, onclick, sign = null) =>
	element("button", { type: "button", class: "plain", onclick }, sign && icon(sign), words);

/** A button with a picture on it, whose name shows when it is pointed at. */
export const iconButton = (name, sign, onclick) =>
	element("button", { type: "button", class: "icon", "aria-label": name, title: name, onclick }, icon(sign));

/** What looks like a failure: a sign, and sentences beside it. */
export const failure = (...children) => element("div", { class: "trouble" }, icon("alert"), element("div", {}, ...children));

export const byId = (id) => document.getElementById(id);
