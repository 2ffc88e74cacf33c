"""The other implementations, each in a process of its own. Only these import onnxruntime, transformers, peft."""
