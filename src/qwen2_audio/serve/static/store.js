// Storage in this browser: conversations and their clips in IndexedDB, settings in localStorage.

const SETTINGS = "qwen2-audio.settings";

const done = (request) =>
	new Promise((resolve, reject) => {
		request.onsuccess = () => resolve(request.result);
		request.onerror = () => reject(request.error);
	});

/** {lasting, all, put, remove}. A conversation: {id, title, changed, turns}; see conversation.js for a turn. */
export async function openStore() {
	try {
		const request = indexedDB.open("qwen2-audio", 1);
		request.onupgradeneeded = () => request.result.createObjectStore("conversations", { keyPath: "id" });
		const database = await done(request);
		const rows = () => database.transaction("conversations", "readwrite").objectStore("conversations");
		return {
			lasting: true,
			all: () => done(rows().getAll()),
			put: (row) => done(rows().put(row)),
			remove: (id) => done(rows().delete(id)),
		};
	} catch {
		// Some private windows refuse: nothing is saved.
		return { lasting: false, all: async () => [], put: async () => {}, remove: async () => {} };
	}
}

const DEFAULTS = { model: "", system: "", temperature: "", top_p: "", max_tokens: "", seed: "", theme: "", key: "", aloud: false };

export function loadSettings() {
	try {
		return { ...DEFAULTS, ...JSON.parse(localStorage.getItem(SETTINGS)) };
	} catch {
		return { ...DEFAULTS };
	}
}

export function saveSettings(settings) {
	try {
		localStorage.setItem(SETTINGS, JSON.stringify(settings));
	} catch {
		// No storage: settings last as long as the page.
	}
}
