"""A LoRA that turns spoken commands into calls of tools: how it is made, and how often it calls rightly."""
