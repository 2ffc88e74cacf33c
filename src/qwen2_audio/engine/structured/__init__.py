"""Answers that a program can read: held to a JSON schema, a pattern, a choice or a grammar; calls of tools."""
