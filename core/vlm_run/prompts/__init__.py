"""Conversations, chat templates, and the tokenization of the prompts that they render to."""
