"""Nano's examination: questions about clips that are rendered again from their seeds, none of which training has had.

The clips come from nano's world: what is said (`world/`), who says it (`speech/`), sounds (`sounds/`), and how they are
mixed (`mix.py`, `scene.py`). The training recipe in `recipes/nano` renders its clips from the same modules.
"""
