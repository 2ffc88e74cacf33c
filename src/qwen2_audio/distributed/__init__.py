"""A process group, and tensor parallelism: a language model divided among its processes."""
