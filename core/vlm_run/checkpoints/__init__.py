"""What a checkpoint directory or a hub cache holds, read without a model library."""
