"""What every benchmark shares: worker processes, random checkpoints, prompts, rows, limits, the roofline."""
