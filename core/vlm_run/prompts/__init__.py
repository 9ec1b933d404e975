"""From messages to token ids: conversations, chat templates, and the prompt they render to."""
