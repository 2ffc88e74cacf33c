"""The short API: `load()` returns an AudioChat, which answers conversations with clips.

`loading` loads a checkpoint, `placement` chooses its device and dtype, `drafts` loads a draft model beside it, `chat`
has the AudioChat, and `service` runs a model behind an engine.
"""
