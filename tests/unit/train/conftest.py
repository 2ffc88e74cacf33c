from kit.training import make, no_picture, rows  # noqa: F401  fixtures of this folder
