"""The short API: `load()` gives an AudioChat, which answers conversations with sound in them.

`loading` finds and loads a checkpoint, `placement` picks its device and dtype, `chat` is the AudioChat itself, and
`service` runs it behind an engine.
"""
