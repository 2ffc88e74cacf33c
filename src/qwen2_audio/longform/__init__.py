"""Sound of any length: where speech is, windows that the model can hear, transcripts and their formats."""
