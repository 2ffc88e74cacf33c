"""How well a checkpoint hears: tests with a known truth, asked through the package's own engine."""
