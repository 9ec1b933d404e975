"""The configuration for `"model_type": "phi3_v"`, which transformers lacks."""

from __future__ import annotations

from transformers import Phi3Config


class Phi3VConfig(Phi3Config):  # type: ignore[misc]
    """Phi-3's configuration with two more entries of config.json: `img_processor` and `embd_layer`."""

    model_type = "phi3_v"
