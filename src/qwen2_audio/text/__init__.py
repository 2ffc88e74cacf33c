"""Text in and out: tokenizer, chat template with its audio slots, streaming detokeniser."""
