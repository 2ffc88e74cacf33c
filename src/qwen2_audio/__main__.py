"""`python -m qwen2_audio` is the `qwen2-audio` command."""

from .cli.main import main

if __name__ == "__main__":
    main()
