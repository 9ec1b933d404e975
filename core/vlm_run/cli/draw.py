"""`vlm-run infer --draw FILE`: the image of a question with the boxes of the answer drawn on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vlm_run.errors import VlmRunError

if TYPE_CHECKING:
    from PIL import Image

    from vlm_run.adapter import Adapter
    from vlm_run.boxes import Box
    from vlm_run.media import MediaPolicy


@dataclass(frozen=True, slots=True)
class Drawing:
    """An image to draw on.

    Attributes:
        path: The file to write.
        image: The original image, upright.
    """

    path: Path
    image: Image.Image

    @classmethod
    def prepare(
        cls, path: Path, adapter: Adapter, question: str, images: Sequence[str], policy: MediaPolicy
    ) -> Drawing:
        """Load the image of a question, before the engine starts.

        Args:
            path: The file to write; its suffix determines the format.
            adapter: The model.
            question: The question, which may contain tags with images.
            images: The images beside the question.
            policy: Which images may be fetched, and how large they may be.

        Raises:
            VlmRunError: The model type's box coordinates are not known, there is not exactly one image, or
                the file cannot be written.
            MediaError: The image cannot be loaded.
        """
        from vlm_run.media import load_image
        from vlm_run.prompts.conversation import Conversation
        from vlm_run.prompts.documents import with_pages

        if adapter.spec.box_coordinates is None:
            raise VlmRunError(
                f"--draw: the box coordinates of '{adapter.spec.model_type}' are not known",
                hint="`vlm-run explain MODEL` shows those of a model type.",
            )
        _check_writable(path)
        conversation = Conversation.from_query(question, images=list(images))
        if len(conversation.images) == 1:
            conversation = with_pages(conversation, policy)
        sources = conversation.images
        if len(sources) != 1:
            raise VlmRunError(
                f"--draw needs exactly one image, but the question has {len(sources)}",
                hint="For a document, give one page, such as doc.pdf#page=2.",
            )
        return cls(path, load_image(sources[0], policy, message_index=0, image_index=0))

    def write(self, boxes: Sequence[Box]) -> None:
        """Write the image with boxes drawn on it, and say so; without boxes there is no file to write.

        Raises:
            VlmRunError: The file cannot be written.
        """
        from vlm_run.boxes import draw_boxes

        if not boxes:
            typer.secho(
                f"note: no boxes in the answer, so {self.path} was not written", fg="yellow", err=True
            )
            return
        try:
            draw_boxes(self.image, boxes).save(self.path)
        except OSError as error:
            raise VlmRunError(f"--draw {self.path} cannot be written: {error.strerror or error}") from None
        noun = "box" if len(boxes) == 1 else "boxes"
        typer.echo(f"{len(boxes)} {noun} drawn on {self.path}", err=True)


def _check_writable(path: Path) -> None:
    from PIL import Image

    formats = Image.registered_extensions()
    if formats.get(path.suffix.lower()) not in Image.SAVE:
        raise VlmRunError(
            f"--draw {path} has no suffix of an image format that can be written", hint="For example OUT.png."
        )
    if not path.parent.is_dir():
        raise VlmRunError(f"--draw {path} cannot be written: {path.parent} is not a directory")
