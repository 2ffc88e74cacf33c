"""Questions about sound of any length: by parts, in one prompt, or by its transcript."""
