// The page put together: microphone, question box, conversation, history and settings.

import { Api } from "./api.js";
import { Player } from "./clip.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { byId } from "./element.js";
import { drawHero } from "./hero.js";
import { History } from "./history.js";
import { Microphone } from "./mic.js";
import { Settings } from "./settings.js";
import { LiveSpectrogram, TOKENS_A_SECOND } from "./spectrogram.js";
import { Reader } from "./speak.js";
import { loadSettings, openStore } from "./store.js";
import { Talk } from "./talk.js";
import { LONGEST, spell, toWav } from "./wav.js";

const TOUCH = matchMedia("(pointer: coarse)").matches;
const HINTS = {
	off: TOUCH ? "Hold to talk, or tap." : "Hold Space to talk, or tap the round button.",
	opening: "Opening the microphone…",
	held: "Let go to send.",
	latched: "Press again to send, Esc to drop it.",
	waiting: "Listening. Just talk.",
	hearing: "Hearing you.",
};

const api = new Api();
const player = new Player();
const reader = new Reader();
const live = new LiveSpectrogram(byId("live-canvas"));
const settings = new Settings(loadSettings(), (name) => name === "model" && connect());
const talk = new Talk(new Microphone(), {
	changed: refresh,
	block: recorded,
	begun: () => conversation.stop("interrupted"),
	clip: (samples, since) => send(composer.flush({ wav: toWav(samples), name: "", heard: null }), since),
	full: () => composer.problem(`A clip holds ${LONGEST} s: it was sent as it was then, and nothing after that.`),
	problem: (problem) => composer.problem(problem.message),
});
const composer = new Composer(player, { send, changed: refresh });
const history = new History(await openStore(), { open: start, removed: (id) => (id === conversation.id ? start() : history.show(conversation.id)) });
let retry = 0; // timer
const page = {
	api,
	settings,
	reader,
	player,
	list: byId("turns"),
	changed: refresh,
	saved: (row) => history.save(row).then(() => history.show(conversation.id)),
	say: (words) => (byId("said").textContent = words),
	failed: (problem) => problem.kind === "down" && connect(),
	askAnew: (question) => (start(), send(question)),
	key: (key) => (settings.set("key", (api.key = key)), connect()),
};
let conversation = new Conversation(page);

function send(question, since) {
	composer.problem(null);
	player.stop();
	conversation.ask(question, since);
	refresh(true);
}

/** Starts a new conversation, or opens a saved one. */
function start(saved) {
	conversation.stop("stopped");
	player.stop();
	conversation = new Conversation(page, saved);
	history.show(conversation.id);
	byId("rail").hidePopover();
	refresh(true);
}

/** Shows the current state, and scrolls to its end unless the user has scrolled up. */
function refresh(always = false) {
	const box = byId("scroll");
	const near = conversation.turns.length && box.scrollHeight - box.scrollTop - box.clientHeight < 160;
	render();
	if (always || near) box.scrollTop = box.scrollHeight;
}

function render() {
	const { mode } = talk;
	const busy = conversation.answering || reader.speaking;
	document.body.dataset.mode = mode;
	byId("empty").hidden = conversation.turns.length > 0;
	byId("stop").hidden = !busy || !composer.empty;
	byId("send").hidden = !byId("stop").hidden;
	byId("send").disabled = composer.empty;
	byId("talk").setAttribute("aria-pressed", talk.recording);
	byId("aloud").setAttribute("aria-pressed", settings.values.aloud);
	byId("hands-free").setAttribute("aria-checked", talk.handsFree);
	byId("hint").textContent = mode === "waiting" && busy ? "Talk to interrupt." : HINTS[mode];
	byId("live").hidden = mode === "off" || mode === "opening";
	byId("live").classList.toggle("on-air", talk.recording);
	byId("live-state").textContent = talk.recording ? "On air" : "Listening";
	if (byId("live").hidden) live.clear();
}

function recorded(block, recording) {
	if (byId("live").hidden) return;
	live.push(block, recording);
	const loudness = 10 * Math.log10(block.reduce((sum, v) => sum + v * v, 1e-10) / block.length);
	byId("talk").style.setProperty("--level", Math.max(0, Math.min(1, (loudness + 55) / 45)).toFixed(2));
	const { seconds } = talk;
	byId("live-count").textContent = recording ? `${spell(seconds)} of ${LONGEST} · ${Math.floor(seconds * TOKENS_A_SECOND)} tokens` : "";
}

function serving(state, words) {
	byId("serving").dataset.state = state;
	byId("serving-text").textContent = words;
}

/** Asks the server for its models, every 3 s until it answers. */
async function connect() {
	clearTimeout(retry);
	try {
		settings.models(await api.models());
		serving("up", settings.model.id.split("/").at(-1));
		byId("serving").title = settings.model.about;
	} catch (problem) {
		const known = { key: "needs an API key", down: "server does not answer" };
		serving(problem.kind, known[problem.kind] ?? problem.message);
		if (problem.kind === "down") retry = setTimeout(connect, 3000);
	}
}

function bindTalkButton() {
	const button = byId("talk");
	button.onpointerdown = (event) => {
		if (event.button !== 0) return;
		button.setPointerCapture(event.pointerId);
		talk.press();
	};
	button.onpointerup = button.onpointercancel = () => talk.release();
	button.oncontextmenu = (event) => event.preventDefault(); // no menu on a long touch
	button.onclick = ({ detail }) => {
		if (detail) return; // pointers are handled above; this is Enter or a screen reader
		talk.press();
		talk.release();
	};
}

function bindKeys() {
	const isFree = (target) => target === byId("talk") || !target.closest("input, textarea, select, button, a, dialog");
	let spaceHeld = false;
	addEventListener("keydown", (event) => {
		if (event.key === " " && isFree(event.target)) {
			event.preventDefault();
			if (!event.repeat) spaceHeld = (talk.press(), true);
		}
		if (event.key === "Escape" && !document.querySelector("dialog[open], :popover-open")) escape();
	});
	addEventListener("keyup", (event) => {
		if (event.key !== " " || !spaceHeld) return;
		event.preventDefault();
		spaceHeld = false;
		talk.release();
	});
	addEventListener("blur", () => spaceHeld && ((spaceHeld = false), talk.release()));
}

function escape() {
	if (talk.recording) talk.cancel();
	else conversation.stop("stopped");
	composer.problem(null);
}

function bindButtons() {
	for (const button of document.querySelectorAll(".icon")) button.title = button.getAttribute("aria-label");
	byId("new").onclick = () => {
		start();
		byId("text").focus();
	};
	byId("stop").onclick = () => conversation.stop("stopped");
	byId("hands-free").onclick = () => talk.setHandsFree(!talk.handsFree);
	byId("try-talk").onclick = () => (talk.press(), talk.release(), byId("talk").focus());
	byId("try-file").onclick = () => byId("files").click();
	byId("try-type").onclick = () => byId("text").focus();
	byId("aloud").hidden = !reader.possible;
	byId("aloud").onclick = () => {
		settings.set("aloud", !settings.values.aloud);
		reader.cancel();
	};
}

api.key = settings.values.key;
reader.onchange = () => ((talk.reading = reader.speaking), refresh());
player.onchange = () => (talk.muted = player.playing);
document.addEventListener("themechange", () => document.querySelectorAll(".clip").forEach((clip) => clip.redraw()));
bindTalkButton();
bindKeys();
bindButtons();
drawHero(byId("hero"));
refresh();
history.show(conversation.id);
connect();
