"""The public names of vlm_run."""

from __future__ import annotations

import vlm_run
import vlm_run.errors


def test_every_public_name_can_be_imported() -> None:
    for name in vlm_run.__all__:
        assert getattr(vlm_run, name) is not None


def test_every_error_class_is_public() -> None:
    classes = [value for value in vars(vlm_run.errors).values() if isinstance(value, type)]
    errors = {each.__name__ for each in classes if issubclass(each, vlm_run.VlmRunError)}
    assert errors <= set(vlm_run.__all__)
