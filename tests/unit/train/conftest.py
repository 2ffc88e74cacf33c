from kit.training import make, rows  # noqa: F401  fixtures of this folder
