// Runs before the first paint, so that a chosen theme does not flash.
try {
	const { theme } = JSON.parse(localStorage.getItem("qwen2-audio.settings"));
	if (theme) document.documentElement.dataset.theme = theme;
} catch {
	// Nothing stored: the system decides.
}
