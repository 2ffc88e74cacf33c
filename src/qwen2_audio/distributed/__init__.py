"""Several processes as one: a process group, and a language model whose layers they share."""
