"""From answers to figures: one scorer a kind of task, strict and lenient readings side by side."""
