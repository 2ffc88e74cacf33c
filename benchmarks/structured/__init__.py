"""Answers held to schemas and grammars: what that costs a step, and what a schema costs first."""
