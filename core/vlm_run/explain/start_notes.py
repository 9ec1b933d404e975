"""Notes for the user before an engine starts: its dtype, and whether its context holds the largest image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm_run.adapter import Adapter


def start_notes(adapter: Adapter, **overrides: Any) -> list[str]:
    """Notes for the user before an engine starts with these engine options."""
    notes = (adapter.dtype_note(**overrides), context_note(adapter, **overrides))
    return [note for note in notes if note is not None]


def context_note(adapter: Adapter, **overrides: Any) -> str | None:
    """A note that the largest image exceeds the context length; None if it fits, or if that is unknown."""
    options = adapter.engine_kwargs(**overrides)
    length = options.get("max_model_len") or adapter.spec.context_length
    largest = adapter.with_engine_kwargs(options).largest_image()
    if largest is None or not isinstance(length, int) or largest[1] < length:
        return None
    (width, height), tokens = largest
    return (
        f"an image of {width} × {height} pixels takes {tokens:,} tokens, but max_model_len is {length:,}; "
        f"requests that do not fit are refused. {largest_image_advice(adapter, '--max-model-len')}"
    )


def largest_image_advice(adapter: Adapter, option: str) -> str:
    """Advice for an engine option that allows fewer tokens than the largest image takes."""
    shrink = ", or let --max-pixels shrink images" if adapter.takes_pixel_bounds else ""
    return f"Raise {option}{shrink}."
