"""From a conversation to the model's inputs: messages, clips, features, ids, batches."""
