"""Batches of dialogues as arrays: tokens, images, where their features go, and the answers to learn.

What depends on the model, its prompt and what it makes of an image, is a `Format`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from vlm_run_demo.boxes import box_dialogue, scored_box_dialogue
from vlm_run_demo.clip_questions import clip_dialogue, scored_clip_dialogue
from vlm_run_demo.clips import Clip
from vlm_run_demo.dialogues import Dialogue, dialogue, scored_dialogue
from vlm_run_demo.drawing import Scene, paint

VALIDATION_SEED = 1_000_000
"""First seed of the examples that training looks at its progress on."""
TRAINING_SEED = 1_000_000_000
"""First seed of the training dialogues; they go upwards from here, a block for each run."""

VALIDATION_SIZE = 100
"""Validation examples at once."""

NEWLINE = -1
"""Stands for a learned end-of-row feature in `Seen.layout`."""
_NO_IMAGE_ROW = 0
_NEWLINE_ROW = 1


_BLANK = Scene(64, 64, (0, 0, 0), 0.0, (0, 0), ())


class Segment(NamedTuple):
    """A piece of prompt; an answer is one whose tokens are to be learned."""

    text: str
    is_answer: bool


class Seen(NamedTuple):
    """What a model is given of one image or clip, and what its features should tell.

    Attributes:
        pixels: Tiles or patches, (n, height, width, 3), uint8. Of a clip, those of the first of each two
            frames that become one.
        layout: For each image token which of the image's features stands there, or `NEWLINE`.
        positions: Time, row and column of each image token where the model rotates by them, (3, tokens).
        grids: Rows and columns of patches of the image, or of each two frames of a clip, (n, 2).
        classes: The shapes at the middle of the patches that each feature stands for, (features, k).
        centres: The shape whose centre lies in the area of each feature, (features,).
        nearest: How far down and across the centre of the nearest shape is, and the logarithm of its size,
            in sides of the feature's area; then where its edges are, if the model is to know. NaN where none
            is near. (features, 3 or 7)
        later: Patches of the second of each two frames of a clip, as `pixels`; None for an image.
    """

    pixels: NDArray[np.uint8]
    layout: NDArray[np.int64]
    positions: NDArray[np.int64] | None
    grids: NDArray[np.int64]
    classes: NDArray[np.uint8]
    centres: NDArray[np.uint8]
    nearest: NDArray[np.float32]
    later: NDArray[np.uint8] | None = None


@dataclass(frozen=True)
class Format:
    """How one model is prompted and shown images.

    Attributes:
        image_token: Stands in `segments` for one image.
        video_token: Stands there for one clip; None if the model takes none.
        bos: Put before a prompt by the tokenizer, if anything is.
        pad: Fills up a batch.
        segments: What the chat template writes for a dialogue, cut where answers begin and end. The cuts
            fall where the tokenizer cuts words, so tokenizing the pieces is tokenizing the whole.
        look: A scene and its image as the model sees it.
        watch: A clip as the model sees it; None if it takes none.
    """

    image_token: str
    video_token: str | None
    bos: str | None
    pad: str
    segments: Callable[[Dialogue], Iterator[Segment]]
    look: Callable[[Scene, Image.Image], Seen]
    watch: Callable[[Clip], Seen] | None


@dataclass(frozen=True)
class Batch:
    """Dialogues of one batch, padded on the right to one length.

    Attributes:
        tokens: Token ids, (batch, length).
        positions: Temporal, vertical and horizontal position of each token, (3, batch, length).
        rows: For image tokens the row of the feature table (1 is the newline, then all features of
            all images in order), else 0; (batch, length).
        pixels: All tiles or patches of the batch, (n, height, width, 3), uint8.
        later: The second frames of patches of clips, whose first ones are in `pixels`, (m, height, width, 3).
        moving: The rows of `pixels` that `later` belongs to, (m,).
        grids: Rows and columns of patches of each image and of each two frames of a clip, (grids, 2).
        where: Time, row and column of each feature, (features, 3); zeros where the model does not rotate by
            them.
        classes: The shapes at the middle of the patches of each feature, (features, k).
        centres: The shape whose centre lies in the area of each feature, (features,).
        nearest: Where the nearest shape's centre is and how large it is, as in `Seen`, (features, 3).
        places: Indices into the flattened tokens after which an answer token comes, (answer tokens,).
        answers: Those answer tokens, (answer tokens,).
        owners: The dialogue that each answer token belongs to, (answer tokens,).
    """

    tokens: Tensor
    positions: Tensor
    rows: Tensor
    pixels: Tensor
    later: Tensor
    moving: Tensor
    grids: Tensor
    where: Tensor
    classes: Tensor
    centres: Tensor
    nearest: Tensor
    places: Tensor
    answers: Tensor
    owners: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        return Batch(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))

    def pin_memory(self) -> Batch:
        """The same batch in memory that a GPU can read; the data loader calls this."""
        return Batch(*(getattr(self, f.name).pin_memory() for f in fields(self)))


class Encoder:
    """Turns dialogues into batches in a model's format, with its checkpoint's tokenizer."""

    def __init__(self, form: Format, tokenizer: Tokenizer, multiple: int = 64) -> None:
        """`multiple`: batches are padded to a multiple of so many tokens."""
        ids = tokenizer.get_vocab()
        self._form = form
        self._nothing = _none_of(form.look(_BLANK, paint(_BLANK)))
        self._multiple = multiple
        self._media = [ids[token] for token in (form.image_token, form.video_token) if token is not None]
        self._pad = ids[form.pad]
        self._bos = [] if form.bos is None else [np.array([ids[form.bos]])]
        # Questions repeat: almost every look-up is a hit.
        self._ids = lru_cache(maxsize=200_000)(
            lambda text: np.array(tokenizer.encode(text, add_special_tokens=False).ids)
        )

    def batch(self, talks: Sequence[Dialogue], *, last_answer_only: bool = False) -> Batch:
        """One batch of `talks`; optionally only the last answer of each counts."""
        tokens, positions, rows, places, answers = [], [], [], [], []
        # Stands for itself where no dialogue has an image, so that all arrays have their shapes.
        all_seen = [self._nothing]
        features_before = _NEWLINE_ROW + 1
        for talk in talks:
            seen = self._see(talk)
            layouts = []
            for one in seen:
                layouts.append(np.where(one.layout == NEWLINE, _NEWLINE_ROW, one.layout + features_before))
                features_before += len(one.centres)
            ids, is_answer = self._tokens(talk, last_answer_only=last_answer_only)
            positions.append(_positions(np.isin(ids, self._media), seen))
            copies = np.ones(len(ids), dtype=np.int64)
            copies[np.isin(ids, self._media)] = [len(layout) for layout in layouts]
            ids, is_answer = np.repeat(ids, copies), np.repeat(is_answer, copies)
            row = np.full(len(ids), _NO_IMAGE_ROW)
            if layouts:
                row[np.isin(ids, self._media)] = np.concatenate(layouts)
            all_seen += seen
            tokens.append(ids)
            rows.append(row)
            places.append(np.flatnonzero(is_answer) - 1)
            answers.append(ids[is_answer])
        length = -(-max(map(len, tokens)) // self._multiple) * self._multiple
        axes = [_padded(axis, length, 0) for axis in zip(*positions, strict=True)]
        pixels = np.concatenate([one.pixels for one in all_seen])
        later, moving = _moving(all_seen)
        where = [
            np.zeros((3, len(one.centres)), np.int64) if one.positions is None else one.positions
            for one in all_seen
        ]
        classes = np.concatenate([one.classes for one in all_seen])
        centres = np.concatenate([one.centres for one in all_seen])
        return Batch(
            tokens=torch.from_numpy(_padded(tokens, length, self._pad)),
            positions=torch.from_numpy(np.stack(axes)),
            rows=torch.from_numpy(_padded(rows, length, _NO_IMAGE_ROW)),
            pixels=torch.from_numpy(pixels),
            later=torch.from_numpy(later),
            moving=torch.from_numpy(moving),
            grids=torch.from_numpy(np.concatenate([one.grids for one in all_seen])),
            where=torch.from_numpy(np.concatenate(where, axis=1).T.copy()),
            classes=torch.from_numpy(classes.astype(np.int64)),
            centres=torch.from_numpy(centres.astype(np.int64)),
            nearest=torch.from_numpy(np.concatenate([one.nearest for one in all_seen])),
            places=torch.from_numpy(np.concatenate([place + i * length for i, place in enumerate(places)])),
            answers=torch.from_numpy(np.concatenate(answers)),
            owners=torch.from_numpy(np.repeat(np.arange(len(talks)), [len(a) for a in answers])),
        )

    def _see(self, talk: Dialogue) -> list[Seen]:
        """The images and the clip of a dialogue as the model sees them."""
        seen = [self._form.look(scene, image) for scene, image in zip(talk.scenes, talk.images, strict=True)]
        if talk.clip is not None and self._form.watch is not None:
            seen.append(self._form.watch(talk.clip))
        return seen

    def _tokens(
        self, talk: Dialogue, *, last_answer_only: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Token ids with one image token an image, and which of them are answers that count."""
        segments = list(self._form.segments(talk))
        pieces = [*self._bos, *(self._ids(segment.text) for segment in segments)]
        counts = [False] * len(self._bos) + [segment.is_answer for segment in segments]
        if last_answer_only:
            last = len(counts) - 1 - counts[::-1].index(True)
            counts = [i == last for i in range(len(counts))]
        return np.concatenate(pieces), np.repeat(counts, [len(piece) for piece in pieces])


def _none_of(seen: Seen) -> Seen:
    """No image at all, in arrays of the right shapes."""
    return seen._replace(
        pixels=seen.pixels[:0],
        positions=None if seen.positions is None else seen.positions[:, :0],
        grids=seen.grids[:0],
        classes=seen.classes[:0],
        centres=seen.centres[:0],
        nearest=seen.nearest[:0],
    )


def _moving(all_seen: Sequence[Seen]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The second frames of the patches of clips, and the rows of the first among all patches."""
    later, rows, before = [all_seen[0].pixels[:0]], [np.arange(0)], 0
    for one in all_seen:
        if one.later is not None:
            later.append(one.later)
            rows.append(before + np.arange(len(one.later)))
        before += len(one.pixels)
    return np.concatenate(later), np.concatenate(rows)


def _positions(is_image: NDArray[np.bool_], seen: Sequence[Seen]) -> NDArray[np.int64]:
    """Three positions of each token once image tokens are written out: (3, tokens).

    Text counts upwards in all three. An image's tokens share the first, and add their row and column to
    the other two; a clip's also add their time to the first. Text goes on after the largest of all, where the
    model rotates by rows and columns.
    """
    parts, start, text = [], 0, 0
    for place, one in zip(np.flatnonzero(is_image), seen, strict=True):
        before = int(place) - text
        parts.append(np.tile(np.arange(start, start + before), (3, 1)))
        start, text = start + before, int(place) + 1
        if one.positions is None:
            parts.append(np.tile(np.arange(start, start + len(one.layout)), (3, 1)))
            start += len(one.layout)
        else:
            parts.append(start + one.positions)
            start += int(one.positions.max()) + 1
    parts.append(np.tile(np.arange(start, start + len(is_image) - text), (3, 1)))
    return np.concatenate(parts, axis=1)


def _padded(sequences: Sequence[NDArray[np.int64]], length: int, filler: int) -> NDArray[np.int64]:
    """The sequences as the rows of one array."""
    out = np.full((len(sequences), length), filler)
    for row, sequence in zip(out, sequences, strict=True):
        row[: len(sequence)] = sequence
    return out


@dataclass(frozen=True)
class Mixture:
    """What training batches are about.

    A batch has one image a dialogue (a few dialogues have none), one with boxes to be found, two images, or a
    clip. It holds half as many dialogues with two images and a quarter as many with clips, so that batches
    are about equally long.

    Attributes:
        two_images: Share of batches about two images.
        boxes: Share of batches with questions for boxes.
        videos: Share of batches about clips.
        easy: So many batches at the beginning are about one image: seeing comes before comparing.
        turns: Fewest and most turns of a dialogue.
        favour: How many times as likely as others kinds of questions are, by name.
    """

    two_images: float
    boxes: float
    videos: float
    easy: int
    turns: tuple[int, int]
    favour: Mapping[str, float]

    def talks(self, seed: int, index: int, size: int) -> list[Dialogue]:
        """The dialogues of one batch.

        Args:
            seed: Decides everything; that of the next batch is larger by `size`.
            index: How many batches came before it.
            size: Number of dialogues with one image.
        """
        draw = np.random.default_rng(seed)
        kind = draw.random() if index >= self.easy else 1.0
        two = kind < self.two_images
        boxes = not two and kind < self.two_images + self.boxes
        videos = not two and not boxes and kind < self.two_images + self.boxes + self.videos
        talks = []
        for i in range(size // (4 if videos else 2 if two else 1)):
            images = 2 if two else int(draw.random() > 0.03)
            turns = int(draw.integers(self.turns[0], self.turns[1] + 1))
            if videos:
                talks.append(clip_dialogue(seed + i, turns))
            elif boxes:
                talks.append(box_dialogue(seed + i, turns))
            else:
                talks.append(dialogue(seed + i, images, turns, self.favour))
        return talks


class TrainingBatches(IterableDataset[Batch]):  # type: ignore[misc]
    """Endless training batches; each data worker draws its own."""

    def __init__(
        self,
        form: Format,
        tokenizer_file: str,
        size: int,
        mixture: Mixture,
        *,
        run: int,
        first: int,
        multiple: int,
        share: tuple[int, int],
    ) -> None:
        """`first`: batches drawn before; `share`: which of how many processes that train this one is."""
        self._form = form
        self._tokenizer_file = tokenizer_file
        self._size = size
        self._mixture = mixture
        self._run = run
        self._first = first
        self._multiple = multiple
        self._share = share

    def __iter__(self) -> Iterator[Batch]:
        encoder = Encoder(self._form, Tokenizer.from_file(self._tokenizer_file), self._multiple)
        worker = get_worker_info()
        index, step = (worker.id, worker.num_workers) if worker else (0, 1)
        index, step = index * self._share[1] + self._share[0], step * self._share[1]
        index += self._first * self._share[1]
        while True:
            seed = TRAINING_SEED * (1 + self._run) + index * self._size
            yield encoder.batch(self._mixture.talks(seed, index, self._size))
            index += step


def validation_batches(
    encoder: Encoder, examples: int, boxes: int, videos: int
) -> Iterator[tuple[list[str], Batch]]:
    """Validation examples and the kind of each; only the last answer counts."""
    drawn: tuple[tuple[int, Callable[[int], tuple[str, Dialogue]]], ...] = (
        (examples, scored_dialogue),
        (boxes, scored_box_dialogue),
        (videos, scored_clip_dialogue),
    )
    for count, draw in drawn:
        for start in range(0, count, VALIDATION_SIZE):
            numbers = range(start, min(start + VALIDATION_SIZE, count))
            kinds, talks = zip(*(draw(VALIDATION_SEED + i) for i in numbers), strict=True)
            yield list(kinds), encoder.batch(talks, last_answer_only=True)
