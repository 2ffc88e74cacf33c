"""From a conversation to what the model takes: messages, clips, features, ids, batches."""
