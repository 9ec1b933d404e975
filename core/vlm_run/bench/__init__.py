"""Measures throughput and latency beside plain vLLM, offline and served."""
