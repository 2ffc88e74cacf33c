// Storage in this browser: conversations and their clips in IndexedDB, settings in localStorage.

const SETTINGS = "qwen2-audio.settings";

const done = (request) =>
	new Promise((resolve, reject) => {
		request.onsuccess = () => resolve(request.result);
		request.onerror = () => reject(request.error);
	});

/**
 * {lasting, all, get, put, remove}. A conversation: {id, title, changed, turns}; see conversation.js for a turn.
 * put(row, known) resolves to the id it is saved under: a new one if another tab has saved it since `known`, in ms.
 */
export async function openStore() {
	try {
		const request = indexedDB.open("qwen2-audio", 1);
		request.onupgradeneeded = () => request.result.createObjectStore("conversations", { keyPath: "id" });
		const database = await done(request);
		const rows = () => database.transaction("conversations", "readwrite").objectStore("conversations");
		const put = async (row, known) => {
			const table = rows();
			const stored = await done(table.get(row.id));
			const id = stored?.changed > known ? newId() : row.id;
			await done(table.put({ ...row, id }));
			return id;
		};
		return {
			lasting: true,
			all: () => done(rows().getAll()),
			get: (id) => done(rows().get(id)),
			put,
			remove: (id) => done(rows().delete(id)),
		};
	} catch {
		// Some private windows refuse: nothing is saved.
		return { lasting: false, all: async () => [], get: async () => {}, put: async ({ id }) => id, remove: async () => {} };
	}
}

export const newId = () => `${Date.now()}-${Math.random()}`;

const DEFAULTS = { model: "", system: "", temperature: "", top_p: "", max_tokens: "", seed: "", theme: "", key: "", aloud: false, numbers: false };

export function loadSettings() {
	try {
		return { ...DEFAULTS, ...JSON.parse(localStorage.getItem(SETTINGS)) };
	} catch {
		return { ...DEFAULTS };
	}
}

/** Calls `changed` when another tab has saved settings. */
export const onSettings = (changed) => addEventListener("storage", ({ key }) => key === SETTINGS && changed());

export function saveSettings(settings) {
	try {
		localStorage.setItem(SETTINGS, JSON.stringify(settings));
	} catch {
		// No storage: settings last as long as the page.
	}
}
