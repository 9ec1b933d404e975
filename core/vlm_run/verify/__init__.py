"""Compares vLLM's greedy answers with those of transformers on the same weights."""
