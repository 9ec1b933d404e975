"""Batches of dialogues as arrays: tokens, where image features go, tiles, and the answers to learn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from anyres import NEWLINE, PATCHES, TILE, layout, patch_at, patch_classes, tiles
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from vlm_run_demo.dialogues import Dialogue, dialogue, scored_dialogue
from vlm_run_demo.drawing import Scene, class_map, class_of

VALIDATION_SEED = 1_000_000
"""First seed of the examples that training looks at its progress on."""
TRAINING_SEED = 1_000_000_000
"""First seed of the training dialogues; they go upwards from here, a block for each run."""

_NO_IMAGE_ROW = 0
_NEWLINE_ROW = 1


class Segment(NamedTuple):
    """A piece of prompt; an answer is one whose tokens are to be learned."""

    text: str
    is_answer: bool


def prompt_segments(talk: Dialogue) -> Iterator[Segment]:
    """What the chat template writes for `talk`, cut where answers begin and end.

    The cuts fall where the tokenizer cuts words, so tokenizing the pieces is tokenizing the whole.
    """
    opening = f"<<SYS>>\n{talk.system}\n<</SYS>>\n\n[INST] " if talk.system is not None else "[INST] "
    opening += "<image>\n" * len(talk.scenes)
    for turn in talk.turns:
        yield Segment(f"{opening}{turn.question} [/INST]", False)
        yield Segment(f" {turn.answer}</s>", True)
        opening = " [INST] "


@dataclass(frozen=True)
class Batch:
    """Dialogues of one batch, padded on the right to one length.

    Attributes:
        tokens: Token ids, (batch, length).
        rows: For image tokens the row of the feature table (1 is the newline, then all features of
            all tiles in order), else 0; (batch, length).
        tiles: All tiles of the batch, (tiles, 64, 64, 3), uint8.
        classes: The shape that is at the middle of each patch of the tiles, (tiles, 64).
        centres: The shape whose centre lies in each patch, (tiles, 64).
        places: Indices into the flattened tokens after which an answer token comes, (answer tokens,).
        answers: Those answer tokens, (answer tokens,).
        owners: The dialogue that each answer token belongs to, (answer tokens,).
    """

    tokens: Tensor
    rows: Tensor
    tiles: Tensor
    classes: Tensor
    centres: Tensor
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
    """Turns dialogues into batches with the checkpoint's tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        ids = tokenizer.get_vocab()
        self._bos, self._image, self._pad = ids["<s>"], ids["<image>"], ids["<pad>"]
        # Questions repeat: almost every look-up is a hit.
        self._ids = lru_cache(maxsize=200_000)(
            lambda text: np.array(tokenizer.encode(text, add_special_tokens=False).ids)
        )

    def batch(self, talks: Sequence[Dialogue], *, last_answer_only: bool = False) -> Batch:
        """One batch of `talks`; optionally only the last answer of each counts."""
        tokens, rows, places, answers = [], [], [], []
        all_tiles = [np.zeros((0, TILE, TILE, 3), dtype=np.uint8)]
        classes = [np.zeros((0, PATCHES), dtype=np.uint8)]
        centres = [np.zeros((0, PATCHES), dtype=np.uint8)]
        features_before = _NEWLINE_ROW + 1
        for talk in talks:
            layouts = []
            for scene, picture in zip(talk.scenes, talk.pictures, strict=True):
                cut = tiles(picture)
                where = layout(picture.height, picture.width)
                layouts.append(np.where(where == NEWLINE, _NEWLINE_ROW, where + features_before))
                features_before += len(cut) * PATCHES
                all_tiles.append(cut)
                classes.append(patch_classes(class_map(scene)))
                centres.append(_patch_centres(scene, len(cut)))
            ids, is_answer = self._tokens(talk, last_answer_only=last_answer_only)
            copies = np.ones(len(ids), dtype=np.int64)
            copies[ids == self._image] = [len(where) for where in layouts]
            ids, is_answer = np.repeat(ids, copies), np.repeat(is_answer, copies)
            row = np.full(len(ids), _NO_IMAGE_ROW)
            if layouts:
                row[ids == self._image] = np.concatenate(layouts)
            tokens.append(ids)
            rows.append(row)
            places.append(np.flatnonzero(is_answer) - 1)
            answers.append(ids[is_answer])
        length = -(-max(map(len, tokens)) // 64) * 64
        return Batch(
            tokens=torch.from_numpy(_padded(tokens, length, self._pad)),
            rows=torch.from_numpy(_padded(rows, length, _NO_IMAGE_ROW)),
            tiles=torch.from_numpy(np.concatenate(all_tiles)),
            classes=torch.from_numpy(np.concatenate(classes).astype(np.int64)),
            centres=torch.from_numpy(np.concatenate(centres).astype(np.int64)),
            places=torch.from_numpy(np.concatenate([place + i * length for i, place in enumerate(places)])),
            answers=torch.from_numpy(np.concatenate(answers)),
            owners=torch.from_numpy(np.repeat(np.arange(len(talks)), [len(a) for a in answers])),
        )

    def _tokens(
        self, talk: Dialogue, *, last_answer_only: bool
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Token ids with one `<image>` a picture, and which of them are answers that count."""
        segments = list(prompt_segments(talk))
        pieces = [np.array([self._bos]), *(self._ids(segment.text) for segment in segments)]
        counts = [False, *(segment.is_answer for segment in segments)]
        if last_answer_only:
            counts = [False] * (len(counts) - 1) + [True]
        return np.concatenate(pieces), np.repeat(counts, [len(piece) for piece in pieces])


def _patch_centres(scene: Scene, tile_count: int) -> NDArray[np.uint8]:
    """The class of the shape whose centre lies in each patch of a scene's tiles: (tiles, 64)."""
    centres = np.zeros(tile_count * PATCHES, dtype=np.uint8)
    for shape in scene.shapes:
        centres[list(patch_at(scene.height, scene.width, shape.x, shape.y))] = class_of(shape)
    return centres.reshape(tile_count, PATCHES)


def _padded(sequences: Sequence[NDArray[np.int64]], length: int, filler: int) -> NDArray[np.int64]:
    """The sequences as the rows of one array."""
    out = np.full((len(sequences), length), filler)
    for row, sequence in zip(out, sequences, strict=True):
        row[: len(sequence)] = sequence
    return out


class TrainingBatches(IterableDataset[Batch]):  # type: ignore[misc]
    """Endless training batches; each data worker draws its own.

    A batch has one picture a dialogue (a few dialogues have none) or two pictures a dialogue, in
    which case it holds half as many dialogues, so that batches are about equally long. The first
    `easy` batches have one picture: seeing comes before comparing.
    """

    def __init__(self, tokenizer_file: str, size: int, two_pictures: float, easy: int, run: int) -> None:
        self._tokenizer_file = tokenizer_file
        self._size = size
        self._two_pictures = two_pictures
        self._easy = easy
        self._run = run

    def __iter__(self) -> Iterator[Batch]:
        encoder = Encoder(Tokenizer.from_file(self._tokenizer_file))
        worker = get_worker_info()
        index, step = (worker.id, worker.num_workers) if worker else (0, 1)
        while True:
            seed = TRAINING_SEED * (1 + self._run) + index * self._size
            draw = np.random.default_rng(seed)
            two = index >= self._easy and draw.random() < self._two_pictures
            yield encoder.batch(
                [
                    dialogue(seed + i, 2 if two else int(draw.random() > 0.03), int(draw.integers(1, 11)))
                    for i in range(self._size // (2 if two else 1))
                ]
            )
            index += step


def validation_batches(encoder: Encoder, examples: int, size: int) -> Iterator[tuple[list[str], Batch]]:
    """Validation examples and the kind of each; only the last answer counts."""
    for start in range(0, examples, size):
        kinds, talks = zip(
            *(scored_dialogue(VALIDATION_SEED + i) for i in range(start, min(start + size, examples))),
            strict=True,
        )
        yield list(kinds), encoder.batch(talks, last_answer_only=True)
