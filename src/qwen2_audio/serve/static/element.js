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
	svg.append(use);
	return svg;
}

export const byId = (id) => document.getElementById(id);
