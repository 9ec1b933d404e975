"""Boxes in answers: how models write them, and where they are in the original image."""

from __future__ import annotations

from vlm_run.boxes.coordinates import Box, BoxCoordinates, ImageSize
from vlm_run.boxes.drawing import draw_boxes
from vlm_run.boxes.parsing import TAGS, parse_boxes

__all__ = ["TAGS", "Box", "BoxCoordinates", "ImageSize", "draw_boxes", "parse_boxes"]
