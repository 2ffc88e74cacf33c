"""A job over a corpus of any size: one question to every clip, resumable, on one machine or on Ray.

import qwen2_audio as qa
summary = qa.run_job({"model": "nano", "input": "clips/", "output": "out", "ask": "What is that sound?"})
"""
