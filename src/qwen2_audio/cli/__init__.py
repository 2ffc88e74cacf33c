"""The `qwen2-audio` command: `main` has the table of commands, every other file is one of them or part of one."""
