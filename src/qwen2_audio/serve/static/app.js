// The page put together: microphone, question box, conversation, history and settings.

import { Api } from "./api.js";
import { Player } from "./clip.js";
import { Composer } from "./composer.js";
import { Conversation } from "./conversation.js";
import { byId } from "./element.js";
import { History } from "./history.js";
import { Microphone } from "./mic.js";
import { Settings } from "./settings.js";
import { LiveSpectrogram } from "./spectrogram.js";
import { Reader } from "./speak.js";
import { Status } from "./status.js";
import { loadSettings, openStore } from "./store.js";
import { Talk } from "./talk.js";
import { Welcome } from "./welcome.js";
import { LONGEST, spell, toWav } from "./wav.js";

const TOUCH = matchMedia("(pointer: coarse)").matches;
const TRANSCRIBE = "Transcribe the speech."; // as the turn reads, for people and in later questions
const HINTS = {
	off: TOUCH ? "Hold to talk, or tap." : "Hold Space to talk, or tap the round button.",
	opening: "Opening the microphone…",
	held: TOUCH ? "Let go to send, slide away to discard." : "Let go to send, Esc to discard.",
	latched: TOUCH ? "Tap again to send." : "Press again to send, Esc to discard.",
	waiting: "Listening. Just talk.",
	hearing: "Hearing you.",
};
const SLIDE = 60; // CSS pixels beyond the talk button at which letting go discards the recording

const api = new Api();
const player = new Player();
const reader = new Reader();
const live = new LiveSpectrogram(byId("live-canvas"));
const settings = new Settings(loadSettings(), (name) => name === "model" && status.look(true), useKey);
const welcome = new Welcome(api, player, (question) => (send(question), byId("talk").focus()));
const status = new Status(api, (models) => {
	settings.models(models);
	welcome.show(settings.model.capabilities);
	return settings.model;
});
const talk = new Talk(new Microphone(), {
	changed: refresh,
	block: recorded,
	begun: () => conversation.stop("interrupted"),
	clip: (samples, since) => send(composer.flush({ wav: toWav(samples), name: "", heard: null }), since),
	full: () => composer.problem(`A clip holds ${LONGEST} s: it was sent as it was then, and nothing after that.`),
	problem: (problem) => composer.problem(problem.message),
});
const composer = new Composer(player, { send, transcribe, changed: refresh });
const store = await openStore();
const history = new History(store, {
	open: start,
	removed: (id) => (id === conversation.id ? start() : history.show(conversation.id)),
	elsewhere: (row) => conversation.answering || start(row),
});
const page = {
	api,
	settings,
	reader,
	player,
	transcribe,
	list: byId("turns"),
	changed: refresh,
	saved: async (saved, when) => {
		await history.save(saved, when === "ended");
		if (when !== "midway") show(); // which reads all that is saved
	},
	say: (words) => (byId("said").textContent = words),
	failed: (kind) => ["down", "broken", "server"].includes(kind) && status.look(true), // it may be another server by now
	askAnew: (question) => (start(), send(question)),
	key: useKey,
};
let conversation = new Conversation(page, window.history.state && (await store.get(window.history.state)));

function send(question, since) {
	composer.problem(null);
	player.stop();
	conversation.ask(question, since);
	refresh(true);
}

function transcribe(clip) {
	send({ text: TRANSCRIBE, clips: [clip], task: "transcribe" });
}

/** The server's state with this key. */
function useKey(key) {
	settings.set("key", (api.key = key));
	return status.look(true);
}

/** Starts a new conversation, or opens a saved one. */
function start(saved) {
	conversation.stop("stopped");
	player.stop();
	conversation = new Conversation(page, saved);
	show();
	byId("rail").hidePopover();
	refresh(true);
}

/** Marks the conversation in the list; a reload opens it again. */
function show() {
	window.history.replaceState(conversation.id, "");
	history.show(conversation.id);
}

/** Shows the current state, and scrolls to its end unless the user has scrolled up. */
function refresh(always = false) {
	const box = byId("scroll");
	const near = conversation.turns.length && box.scrollHeight - box.scrollTop - box.clientHeight < 160;
	render();
	if (always || near) box.scrollTop = conversation.turns.length ? box.scrollHeight : 0;
}

function render() {
	const { mode } = talk;
	const busy = conversation.answering || reader.speaking;
	document.body.dataset.mode = mode;
	byId("empty").hidden = conversation.turns.length > 0;
	byId("stop").hidden = !busy;
	byId("send").hidden = busy && composer.empty;
	byId("send").disabled = composer.empty;
	byId("talk").setAttribute("aria-pressed", talk.recording);
	byId("aloud").setAttribute("aria-pressed", settings.values.aloud);
	byId("hands-free").setAttribute("aria-checked", talk.handsFree);
	byId("hint").textContent = mode === "waiting" && busy ? "Talk to interrupt." : HINTS[mode];
	byId("live").hidden = mode === "off" || mode === "opening";
	byId("live").classList.toggle("on-air", talk.recording);
	byId("live-state").textContent = talk.recording ? "Recording" : "Listening";
	byId("drop-recording").hidden = !talk.recording;
	if (byId("live").hidden) live.clear();
}

function recorded(block, recording) {
	if (byId("live").hidden) return;
	live.push(block, recording);
	const loudness = 10 * Math.log10(block.reduce((sum, v) => sum + v * v, 1e-10) / block.length);
	byId("talk").style.setProperty("--level", Math.max(0, Math.min(1, (loudness + 55) / 45)).toFixed(2));
	byId("live-count").textContent = recording ? `${spell(talk.seconds)} of ${LONGEST}` : "";
}

function bindTalkButton() {
	const button = byId("talk");
	button.onpointerdown = (event) => {
		if (event.button !== 0) return;
		button.setPointerCapture(event.pointerId);
		talk.press();
	};
	button.onpointerup = ({ clientX: x, clientY: y }) => {
		const { left, right, top, bottom } = button.getBoundingClientRect();
		const slid = Math.max(left - x, x - right, top - y, y - bottom) > SLIDE;
		if (slid && talk.mode === "held") talk.cancel();
		else talk.release();
	};
	button.onpointercancel = () => talk.release();
	button.oncontextmenu = (event) => event.preventDefault(); // no menu on a long touch
	button.onclick = ({ detail }) => {
		if (detail) return; // pointers are handled above; this is Enter or a screen reader
		talk.press();
		talk.release();
	};
}

function bindKeys() {
	const isFree = (target) => target === byId("talk") || !target.closest("input, textarea, select, button, summary, dialog");
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
	byId("enter-key").onclick = () => settings.open("key");
	byId("drop-recording").onclick = () => talk.cancel();
	if (TOUCH) byId("text").placeholder = "Ask a question"; // nothing is dropped with a finger
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
refresh(true);
show();
status.look();
