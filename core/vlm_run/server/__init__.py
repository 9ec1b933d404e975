"""The OpenAI-compatible server: vLLM's own application with the adapter in it.

Importing this package imports neither vLLM nor FastAPI; its modules do.
"""

from __future__ import annotations
