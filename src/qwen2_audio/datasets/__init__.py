"""Every way a corpus lies on disk, read once for all: evaluation, jobs and training."""
