"""The public names of vlm_run."""

from __future__ import annotations

import vlm_run
import vlm_run.errors


def test_every_public_name_can_be_imported() -> None:
    for name in vlm_run.__all__:
        assert getattr(vlm_run, name) is not None


def test_every_error_class_is_public() -> None:
    errors = {name for name, value in vars(vlm_run.errors).items() if str(value).startswith("<class 'vlm_run.")}
    assert errors <= set(vlm_run.__all__)
