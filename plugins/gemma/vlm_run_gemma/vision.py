"""Gemma 3's image tokens."""

from __future__ import annotations

from vlm_run import UnknownTokenCountError, VisionFacts

# What `Gemma3Processor.full_image_sequence` has around the soft tokens: "\n\n", `boi_token`, `eoi_token` and
# "\n\n". Gemma's vocabulary has a token for two newlines (`Gemma3MultiModalProcessor` in vLLM looks it up).
_AROUND = 4


class SoftTokens(VisionFacts):
    """Every image is resized to one square and takes the same number of soft tokens.

    Source: `Gemma3Processor` in transformers, and `Gemma3ProcessingInfo.get_image_repl` in vLLM.
    """

    image_size: int
    """Side of the square, in pixels."""
    image_seq_length: int
    """Soft tokens of one image."""
    do_pan_and_scan: bool = False
    """Whether wide and tall images are also cropped. The number of tokens is then unknown, since it depends
    on how the tokenizer splits the sentence that the processor writes around the crops."""

    def resized(self, width: int, height: int) -> tuple[int, int]:
        return self.image_size, self.image_size

    def size_with_most_tokens(self) -> tuple[int, int] | None:
        return None if self.do_pan_and_scan else (self.image_size, self.image_size)

    def count_image_tokens(self, width: int, height: int) -> int:
        if self.do_pan_and_scan:
            raise UnknownTokenCountError("image tokens are not counted with do_pan_and_scan")
        return self.image_seq_length + _AROUND
