"""What is said where a library of an extra is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vlm_run.errors import VlmRunError
from vlm_run.extras import check_library, import_library


@pytest.mark.parametrize("need", [check_library, import_library])
def test_a_missing_library_is_named_with_its_use_and_what_installs_it(need: Callable[..., Any]) -> None:
    with pytest.raises(VlmRunError) as error:
        need("no_such_library", "batch", "PDFs")
    assert str(error.value) == (
        "the library no_such_library, needed for PDFs, is not installed. pip install 'vlm-run[batch]'"
    )
    need("json", "batch", "JSON files")
