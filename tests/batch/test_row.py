"""Rows in the shapes of ms-swift, OpenAI, vLLM and LLaVA become the same request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlm_run import Frames
from vlm_run.batch.row import Row, RowFormat, read_row
from vlm_run.prompts.conversation import Conversation
from vlm_run.request import Request, Sampling

FOLDER = Path("/data")
PART = {"type": "image_url", "image_url": {"url": "a.png"}}
ASKED = Conversation.from_query("How many?", images=["/data/a.png"])


def read(columns: dict[str, Any], **how: Any) -> Row:
    return read_row(0, columns, RowFormat(FOLDER, **how))


def conversation(row: Row) -> Conversation:
    assert row.error is None, row.error
    assert row.request is not None
    return row.request.conversation


def said(row: Row) -> list[tuple[str, list[Any]]]:
    return [
        (message.role, [getattr(part, "text", None) or part.source for part in message.parts])  # type: ignore[union-attr]
        for message in conversation(row).messages
    ]


@pytest.mark.parametrize(
    "columns",
    [
        {"query": "How many?", "images": ["a.png"]},
        {"query": "How many?", "image": "a.png"},
        {"query": "How many?", "images": [" a.png\n"]},
        {"query": "<img>\ta.png </img>How many?"},
        {"query": "How many?", "images": '["a.png"]'},
        {"query": "<image>How many?", "images": ["a.png"], "response": "3"},
        {"query": "<img>a.png</img>How many?"},
        {"query": "How many?", "images": [{"bytes": None, "path": "a.png"}], "history": None},
        {"messages": [{"role": "user", "content": [PART, {"type": "text", "text": "How many?"}]}]},
        {"messages": [{"role": "user", "content": "<image>How many?"}], "images": ["a.png"]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "How many?"}]}
            ],
            "images": [{"bytes": None, "path": "a.png"}],
        },
        {
            "custom_id": "x",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "m",
                "messages": [{"role": "user", "content": [PART, {"type": "text", "text": "How many?"}]}],
            },
        },
        {"body": {"messages": [{"role": "user", "content": "How many?"}], "images": ["a.png"]}},
        {
            "id": "x",
            "image": "a.png",
            "conversations": [
                {"from": "human", "value": "<image>\nHow many?"},
                {"from": "gpt", "value": "3"},
            ],
        },
    ],
)
def test_every_shape_asks_the_same(columns: dict[str, Any]) -> None:
    assert said(read(columns)) == [("user", ["/data/a.png", "How many?"])]


def test_what_a_row_answers_is_the_reference_and_not_asked() -> None:
    turns = [("human", "<image>\nOne?"), ("gpt", "1"), ("human", "Two?"), ("gpt", "2")]
    llava = read({"image": "a.png", "conversations": [{"from": who, "value": what} for who, what in turns]})
    assert llava.reference == "2"
    assert said(llava) == [("user", ["/data/a.png", "One?"]), ("assistant", ["1"]), ("user", ["Two?"])]
    openai = read({"messages": [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "1"}]})
    assert openai.reference == "1"
    assert read({"query": "a", "response": ["1", "one"]}).reference == ["1", "one"]
    assert read({"query": "a"}).reference is None


def test_parameters_in_a_batch_line_are_its_own() -> None:
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "max_completion_tokens": 5,
        "stop": "x",
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
    }
    row = read({"custom_id": "r-1", "body": body})
    assert row.id == "r-1"
    assert row.request is not None
    assert row.request.sampling is not None
    assert row.request.sampling.model_dump(exclude_defaults=True) == {
        "max_tokens": 5,
        "stop": ("x",),
        "json_schema": {"type": "object"},
    }


def sampling(columns: dict[str, Any], **commands: Any) -> dict[str, Any]:
    """What differs from the defaults in a row, under a command with parameters of its own."""
    row = read(columns, sampling=Sampling(**commands))
    assert row.request is not None, row.error
    assert row.request.sampling is not None
    return row.request.sampling.model_dump(exclude_defaults=True)


def test_what_a_row_does_not_say_is_as_the_command_says() -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0.0, "logprobs": False}
    commands = {"temperature": 0.7, "max_tokens": 9, "json_schema": {"type": "object"}}
    assert sampling({"body": body}, **commands) == {"max_tokens": 9, "json_schema": {"type": "object"}}
    own = {**body, "structured_outputs": {"choice": ["a", "b"]}}
    assert sampling({"body": own}, **commands) == {"max_tokens": 9, "choice": ("a", "b")}
    assert sampling({"query": "hi", "sampling": {"n": 2}}, **commands)["n"] == 2
    row = read({"query": "hi", "sampling": {"n": 2}})
    assert "set a temperature" in str(row.error)
    silent = read({"query": "hi"}, sampling=Sampling(max_tokens=9))
    assert silent.request == Request(Conversation.from_query("hi"))  # the batch gives it the command's


@pytest.mark.parametrize(
    ("lora", "text_only", "expected"),
    [("ocr", False, "ocr"), ("", False, ""), (None, False, None), ("ocr", True, "ocr"), ("", True, None)],
)
def test_an_empty_adapter_is_the_base_model_and_an_empty_cell_is_none(
    lora: str | None, text_only: bool, expected: str | None
) -> None:
    row = read({"query": "hi", "lora": lora}, text_only=text_only)
    assert row.request is not None
    assert row.request.lora == expected


def test_columns_of_other_names_are_mapped() -> None:
    mapping = {"question": "query", "picture": "images", "answer": "response", "question_id": "id"}
    columns = {
        "question": "How many?",
        "picture": "a.png",
        "answer": "3",
        "question_id": 7,
        "query": "not this",
    }
    row = read(columns, mapping=mapping)
    assert said(row) == [("user", ["/data/a.png", "How many?"])]
    assert (row.id, row.reference) == (7, "3")


def test_prompt_and_system_are_for_rows_that_bring_none() -> None:
    how = {"prompt": "Describe it.", "system": "Be brief."}
    assert said(read({"images": ["a.png"]}, **how)) == [
        ("system", ["Be brief."]),
        ("user", ["/data/a.png", "Describe it."]),
    ]
    assert said(read({"query": "How many?", "system": "Own."}, **how)) == [
        ("system", ["Own."]),
        ("user", ["How many?"]),
    ]
    messages = [{"role": "user", "content": "hi"}]
    assert said(read({"messages": messages}, **how))[0] == ("system", ["Be brief."])
    assert said(read({"body": {"messages": messages}}, **how))[0] == ("system", ["Be brief."])


@pytest.mark.parametrize(
    ("source", "becomes"),
    [
        ("a.png", "/data/a.png"),
        ("sub/../a.png", "/data/sub/../a.png"),
        ("/abs/a.png", "/abs/a.png"),
        ("https://host/a.png", "https://host/a.png"),
        ("data:image/png;base64,AAAA", "data:image/png;base64,AAAA"),
        ("A" * 60, "A" * 60),
        (b"bytes", b"bytes"),
    ],
)
def test_relative_paths_are_of_the_datas_folder(source: Any, becomes: Any) -> None:
    assert conversation(read({"query": "q", "images": [source]})).images == (becomes,)


def test_rows_from_elsewhere_name_no_file_of_this_machine() -> None:
    row = read_row(0, {"query": "q", "images": ["a.png"]}, RowFormat(None))
    assert conversation(row).images == ("a.png",)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"foo": 1}, "--map"),
        ({}, "none"),
        ({"query": 5}, "int"),
        ({"query": "a", "images": ["a", "b"], "history": "x"}, "history"),
        ({"query": "<image><image>", "images": ["a.png"]}, "tag"),
        ({"messages": "hi"}, "list of messages"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"conversations": [{"from": "robot", "value": "x"}]}, "robot"),
        ({"conversations": [{"from": ["robot"], "value": "x"}]}, "robot"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}], "images": ["a", "b"]}, "2 images"),
        ({"body": {}}, "messages"),
        ({"body": {"messages": [{"role": "user", "content": "a"}], "tools": []}}, "tools"),
        ({"body": {"messages": [{"role": "user", "content": "a"}], "response_format": {"type": "x"}}}, "x"),
        (
            {"body": {"messages": [{"role": "user", "content": "a"}], "structured_outputs": {"regex": "x"}}},
            "structured_outputs.regex",
        ),
    ],
)
def test_a_malformed_row_has_an_error_and_raises_none(columns: dict[str, Any], says: str) -> None:
    row = read(columns)
    assert row.request is None
    assert says in str(row.error)
    json.dumps(row.record)


def test_a_column_that_a_row_lacks_is_named_with_those_it_has() -> None:
    assert "'question'" in str(read({"text": "hi"}, mapping={"question": "query"}).error)
    assert "text" in str(read({"text": "hi"}, mapping={"question": "query"}).error)


def test_images_are_shown_by_length_and_hash() -> None:
    row = read({"query": "q", "images": [b"x" * 5000, "data:image/png;base64," + "A" * 5000]})
    shown = row.record["images"]
    assert shown[0]["bytes"] == 5000
    assert shown[1]["characters"] == 5022
    assert len(json.dumps(row.record)) < 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "type", "text", "from", "value", "image", "bytes", "messages"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
COLUMNS = [
    *(
        "query",
        "response",
        "history",
        "images",
        "system",
        "messages",
        "conversations",
        "image",
        "id",
        "custom_id",
    ),
    *("body", "sampling"),
]


@given(st.dictionaries(st.sampled_from(COLUMNS), JSON, max_size=5))
def test_whatever_a_row_holds_it_is_read_or_fails_alone(columns: dict[str, Any]) -> None:
    row = read(columns)
    assert (row.request is None) == (row.error is not None)
    json.dumps(row.record, allow_nan=False)


IN_PARTS = [
    {"role": "user", "content": [{"type": "image", "max_pixels": 784}, {"type": "text", "text": "How many?"}]}
]


@pytest.mark.parametrize(
    "columns",
    [
        {"query": "How many?", "images": ["a.png"], "max_pixels": 784},
        {"messages": IN_PARTS, "images": ["a.png"], "max_pixels": 50176},
        {
            "body": {
                "messages": [{"role": "user", "content": [PART, {"type": "text", "text": "How many?"}]}],
                "mm_processor_kwargs": {"max_pixels": 784},
            }
        },
    ],
    ids=["a row", "a part", "a batch line"],
)
def test_a_row_may_bound_the_area_of_its_images(columns: dict[str, Any]) -> None:
    assert conversation(read(columns)) == ASKED.with_pixel_bounds(max_pixels=784)


# --- Data as people have it


def body(**parameters: Any) -> dict[str, Any]:
    return {"body": {"messages": [{"role": "user", "content": "hi"}], **parameters}}


@pytest.mark.parametrize(
    "path", ["x" * 300, "x" * 1000, "字" * 100, f"a/{'x' * 300}.png", "nul\0.png", "\ud83d.png"]
)
def test_a_text_that_can_be_no_path_stays_the_rows_own_matter(tmp_path: Path, path: str) -> None:
    row = read_row(0, {"query": "q", "images": [path]}, RowFormat(tmp_path))
    assert conversation(row).images[0] in (path, str(tmp_path / path))


@given(st.text(max_size=400))
def test_any_text_may_stand_for_an_image(text: str) -> None:
    row = read({"query": "q", "images": [text]})
    assert (row.request is None) == (row.error is not None)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_what_a_column_that_is_not_used_holds_does_not_matter() -> None:
    row = read({"query": "hi", "extra": nested(50_000)})
    assert said(row) == [("user", ["hi"])]


@pytest.mark.parametrize("column", ["history", "messages", "sampling", "images", "id", "response", "body"])
def test_a_used_column_that_is_nested_too_deeply_is_named(column: str) -> None:
    row = read({"query": "hi", column: nested(50_000)})
    assert f"'{column}' is nested more than 100 levels deep" in str(row.error)
    json.dumps(row.record)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"response_format": "json_object"}, "must be an object with a 'type'"),
        ({"response_format": ["json_schema"]}, "must be an object with a 'type'"),
        ({"response_format": {"type": {"a": 1}}}, "must be an object with a 'type'"),
        ({"response_format": {"type": "json_schema", "json_schema": "x"}}, "has no schema"),
        ({"response_format": {"type": "json_schema", "json_schema": [1]}}, "has no schema"),
        ({"response_format": {"type": "json_schema", "schema": {"type": "object"}}}, "has no schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": "{}"}}}, "has no schema"),
        ({"response_format": {"type": "grammar"}}, "'grammar' is not supported"),
        ({"response_format": False}, "must be an object with a 'type'"),
        ({"structured_outputs": "x"}, "must be an object"),
        ({"structured_outputs": {"json": "{"}}, "not JSON"),
        ({"structured_outputs": {"json": [1]}}, "json_schema"),
        ({"structured_outputs": {"choice": "ab"}}, "choice"),
        (
            {"structured_outputs": {"choice": ["a"]}, "response_format": {"type": "json_object"}},
            "are mutually exclusive",
        ),
        ({"mm_processor_kwargs": {"messages": []}}, "'messages' in 'mm_processor_kwargs'"),
        ({"mm_processor_kwargs": {"images": ["a.png"]}}, "'images' in 'mm_processor_kwargs'"),
        ({"mm_processor_kwargs": {"sampling": {}}}, "'sampling' in 'mm_processor_kwargs'"),
        ({"mm_processor_kwargs": "max_pixels"}, "'mm_processor_kwargs' must be an object"),
        ({"seed": 2**64}, "seed"),
        ({"guided_json": {}}, "guided_json"),
    ],
)
def test_a_parameter_of_a_batch_line_that_is_not_understood_is_refused(
    parameters: dict[str, Any], says: str
) -> None:
    row = read(body(**parameters))
    assert row.request is None
    assert says in str(row.error)


@pytest.mark.parametrize(
    ("parameters", "becomes"),
    [
        ({"response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"json_schema": {"type": "object"}}),
        ({"structured_outputs": {"json": '{"type": "object"}'}}, {"json_schema": {"type": "object"}}),
        ({"structured_outputs": {"choice": ["a", "b"], "json": None}}, {"choice": ("a", "b")}),
        ({"stop": ["a", "b"]}, {"stop": ("a", "b")}),
        ({"stop": "a"}, {"stop": ("a",)}),
    ],
)
def test_a_parameter_of_a_batch_line_that_is_understood_holds(
    parameters: dict[str, Any], becomes: dict[str, Any]
) -> None:
    row = read(body(seed=1, **parameters))
    assert row.request is not None, row.error
    assert row.request.sampling is not None
    assert row.request.sampling.model_dump(exclude_defaults=True) == {"seed": 1, **becomes}


EMPTY = {"index": 0, "text": None, "type": "image"}
TEXT = {"index": None, "text": "How many?", "type": "text"}


@pytest.mark.parametrize(
    "content",
    [
        [EMPTY, TEXT],
        [{**EMPTY, "image": None, "image_url": None}, TEXT],
        [{"type": "image", "image": {"bytes": None, "path": "a.png"}}, TEXT],
        [{"type": "image", "image": "a.png"}, TEXT],
    ],
)
def test_image_parts_as_datasets_write_them(content: list[dict[str, Any]]) -> None:
    row = read(
        {"messages": [{"role": "user", "content": content}], "images": [{"bytes": None, "path": "a.png"}]}
    )
    assert said(row) == [("user", ["/data/a.png", "How many?"])]


@pytest.mark.parametrize("column", ["images", "videos"])
@pytest.mark.parametrize(
    ("cell", "source"),
    [
        ({"path": "a", "bytes": b"data"}, b"data"),
        ({"url": "http://host/b", "path": "/data/a"}, "/data/a"),
        ({"url": "http://host/b", "base64": "AAAA"}, "AAAA"),
        ({"url": "http://host/b", "path": None}, "http://host/b"),
    ],
)
def test_of_an_object_with_several_sources_one_counts(column: str, cell: dict[str, Any], source: Any) -> None:
    asked = conversation(read({"query": "How many?", column: [cell]}))
    assert (asked.images or asked.videos) == (source,)


def test_bytes_inside_a_message_are_its_image() -> None:
    part = {"type": "image", "image": {"bytes": b"png", "path": "a.png"}}
    assert said(read({"messages": [{"role": "user", "content": [part, TEXT]}]})) == [
        ("user", [b"png", "How many?"])
    ]


def test_indices_say_which_image_a_part_is() -> None:
    content = [{**EMPTY, "index": 1}, TEXT, EMPTY]
    row = read({"messages": [{"role": "user", "content": content}], "images": ["a.png", "b.png"]})
    assert said(row) == [("user", ["/data/b.png", "How many?", "/data/a.png"])]


@pytest.mark.parametrize("text", ["[10, 20, 30, 40]", '{"a": 1}', "[]", ' ["x"]'])
def test_a_reference_that_looks_like_json_stays_text(text: str) -> None:
    assert read({"query": "q", "response": text}).reference == text
    assert read({"query": "q", "answer": text}, mapping={"answer": "response"}).reference == text
    assert read({"query": "q", "response": text}, text_only=True).reference == text
    assert read({"query": "q", "references": text}).reference == text


def test_a_list_of_references_in_csv_has_a_column_of_its_own() -> None:
    assert read({"query": "q", "references": '["4", "four"]'}, text_only=True).reference == ["4", "four"]


@pytest.mark.parametrize(
    "completion",
    [
        [{"role": "assistant", "content": "4"}],
        {"role": "assistant", "content": "4"},
        [{"role": "assistant", "content": [{"type": "text", "text": "4"}]}],
    ],
)
def test_a_message_may_be_the_reference(completion: Any) -> None:
    assert read({"query": "q", "completion": completion}, mapping={"completion": "response"}).reference == "4"


@pytest.mark.parametrize("value", ["200704", 200704.0, "200704.0", " 200704 ", 200704])
def test_numbers_of_csv_and_float_columns_bound_images(value: Any) -> None:
    row = read({"query": "How many?", "images": ["a.png"], "max_pixels": value, "min_pixels": float("nan")})
    assert conversation(row) == ASKED.with_pixel_bounds(max_pixels=200704)


@pytest.mark.parametrize("value", ["many", 1.5, "0", -1, True, "1e5", float("inf")])
def test_what_is_not_an_area_is_refused(value: Any) -> None:
    assert "max_pixels" in str(read({"query": "q", "max_pixels": value}).error)


def test_a_missing_value_is_not_a_value() -> None:
    row = read({"query": "hi", "system": float("nan"), "images": None, "response": "", "id": float("nan")})
    assert said(row) == [("user", ["hi"])]
    assert (row.id, row.reference) == (None, None)


@pytest.mark.parametrize("name", ["query", "system"])
def test_half_a_character_is_refused_by_name(name: str) -> None:
    row = read({"query": "hi", name: "half \ud83d"})
    assert "message 1: the text has half a character, the lone surrogate U+D83D" in str(row.error)


@pytest.mark.parametrize(
    "columns",
    [
        {"images": ["a.png"], "task": "ocr"},
        {"query": "Title?", "task": "ocr"},
        {"messages": [{"role": "user", "content": "Title?"}], "task": "ocr"},
        {"body": {"messages": [{"role": "user", "content": "Title?"}], "task": "ocr"}},
        {"body": {"messages": [{"role": "user", "content": "Title?"}]}, "task": "ocr"},
    ],
)
def test_a_row_may_name_a_task_of_the_model(columns: dict[str, Any]) -> None:
    row = read(columns, has_tasks=True, task="table")
    assert conversation(row).task == "ocr"
    assert row.record["task"] == "ocr"


def test_rows_without_a_task_have_that_of_the_command() -> None:
    assert conversation(read({"images": ["a.png"]}, has_tasks=True, task="ocr")).task == "ocr"


def test_a_column_of_that_name_stays_unused_where_the_model_has_no_tasks() -> None:
    assert conversation(read({"query": "Q", "task": "vqa"})).task is None


@pytest.mark.parametrize(
    "columns",
    [
        {"query": "What happens?", "videos": ["a.mp4"], "fps": 1},
        {"query": "What happens?", "video": "a.mp4", "fps": "1.0"},
        {"query": "<video>What happens?", "videos": '["a.mp4"]', "fps": 1},
        {"messages": [{"role": "user", "content": "<video>What happens?"}], "videos": ["a.mp4"], "fps": 1},
        {"query": "What happens?", "videos": [{"bytes": None, "path": "a.mp4"}], "fps": 1},
    ],
)
def test_videos_of_a_row(columns: dict[str, Any]) -> None:
    (place,) = conversation(read(columns)).video_places()
    assert (place[1].source, place[1].selection.fps) == ("/data/a.mp4", 1.0)


@pytest.mark.parametrize(
    "videos",
    [
        [["1.png", "2.png"]],
        '[["1.png", "2.png"]]',
        [{"frames": ["1.png", {"bytes": None, "path": "2.png"}], "times": None}],
    ],
)
def test_frames_in_a_row_are_below_its_directory(videos: Any) -> None:
    (place,) = conversation(read({"query": "What happens?", "videos": videos})).video_places()
    assert place[1].source == Frames((str(FOLDER / "1.png"), str(FOLDER / "2.png")))


def test_columns_for_frames_are_ignored_in_a_row_without_videos() -> None:
    row = read({"query": "How many?", "images": ["a.png"], "start": 17, "end": "p. 4"})
    assert conversation(row) == ASKED
