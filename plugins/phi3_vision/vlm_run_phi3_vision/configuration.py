"""The configuration that `"model_type": "phi3_v"` stands for, which transformers lacks."""

from __future__ import annotations

from transformers import Phi3Config


class Phi3VConfig(Phi3Config):  # type: ignore[misc]
    """Phi-3's, with two more entries that config.json fills: `img_processor` and `embd_layer`."""

    model_type = "phi3_v"
