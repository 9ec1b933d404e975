"""The text of answers, without the blank before it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams


async def without_leading_blank(
    outputs: AsyncGenerator[RequestOutput, None], params: SamplingParams
) -> AsyncIterator[RequestOutput]:
    """Remove the white space at the beginning of each answer's text.

    Tokenizers make the blank between prompt and answer part of the answer. Token ids, log-probabilities and
    counts stay as they are.

    Args:
        outputs: vLLM's outputs of one request.
        params: The request's sampling parameters.
    """
    from vllm.sampling_params import RequestOutputKind

    in_pieces = params.output_kind == RequestOutputKind.DELTA
    begun: set[int] = set()
    async with aclosing(outputs):
        async for output in outputs:
            for answer in output.outputs:
                if answer.index not in begun:
                    answer.text = answer.text.lstrip()
                if in_pieces and answer.text:
                    begun.add(answer.index)
            yield output
