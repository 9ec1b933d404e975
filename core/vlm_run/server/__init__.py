"""The OpenAI-compatible server: vLLM's own application, with prompts and images by the adapter.

Importing this package imports neither vLLM nor FastAPI; its modules do.
"""

from __future__ import annotations
