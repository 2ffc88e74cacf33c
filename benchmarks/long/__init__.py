"""Sound of any length: how right, and how fast."""
