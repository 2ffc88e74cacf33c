"""Tokens proposed ahead of the model, which checks them: by prompt lookup, or by a smaller model."""
