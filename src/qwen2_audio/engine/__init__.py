"""Many conversations at once: continuous batching over a paged KV cache. The fast path, held to `generate`'s tokens."""
