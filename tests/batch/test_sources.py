"""Sources of rows: each format gives the same rows, streamed, in the same order every time."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vlm_run.batch.sources import Dataset, json_file, open_dataset
from vlm_run.errors import RequestError, VlmRunError

ROWS = [
    {"id": str(number), "query": f"question {number} — ü", "images": [f"{number}.png"]}
    for number in range(25)
]


def columns(data: Dataset) -> list[Any]:
    found = []
    for _, row in data.rows():
        assert not isinstance(row, RequestError), row
        images = row["images"]
        found.append({**row, "images": json.loads(images) if isinstance(images, str) else images})
    return found


def write_csv(path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "query", "images"])
        writer.writeheader()
        writer.writerows({**row, "images": json.dumps(row["images"])} for row in ROWS)


WRITERS = {
    "d.jsonl": lambda path: path.write_text("".join(json.dumps(row) + "\n\n" for row in ROWS)),
    "lines.json": lambda path: path.write_text("\ufeff" + "\n".join(json.dumps(row) for row in ROWS)),
    "d.json": lambda path: path.write_text(json.dumps(ROWS, indent=2)),
    "d.csv": write_csv,
    "d.parquet": lambda path: datasets.Dataset.from_list(ROWS).to_parquet(path),
    "saved": lambda path: datasets.Dataset.from_list(ROWS).save_to_disk(path),
    "folder": lambda path: (path.mkdir(), WRITERS["d.jsonl"](path / "train.jsonl")),
}


@pytest.fixture(params=WRITERS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    WRITERS[request.param](path)  # type: ignore[no-untyped-call]
    return path


def test_every_format_gives_the_same_rows_again_and_again(source: Path) -> None:
    data = open_dataset(str(source))
    assert columns(data) == ROWS
    assert columns(data) == ROWS
    assert data.total == (None if source.name == "folder" else 25)
    assert open_dataset(str(source)).identity == data.identity
    assert data.directory == (source if source.is_dir() else source.parent)


def test_a_number_takes_so_many_rows_and_a_seed_draws_them(source: Path) -> None:
    assert columns(open_dataset(f"{source}#5")) == ROWS[:5]
    assert columns(open_dataset(f"{source}#500")) == ROWS
    drawn = open_dataset(f"{source}#5", seed=3)
    numbers = [number for number, _ in drawn.rows()]
    assert [row["id"] for row in columns(drawn)] == [str(number) for number in numbers]
    assert len(set(numbers)) == 5
    assert numbers != [0, 1, 2, 3, 4]
    assert numbers == [number for number, _ in open_dataset(f"{source}#5", seed=3).rows()]
    assert numbers != [number for number, _ in open_dataset(f"{source}#5", seed=4).rows()]
    assert drawn.identity != open_dataset(f"{source}#5").identity


def test_other_rows_are_another_identity(tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text('{"query": "a"}\n')
    before = open_dataset(str(file)).identity
    file.write_text('{"query": "b"}\n')
    assert open_dataset(str(file)).identity != before


def test_a_bad_line_costs_its_own_row(tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl"
    file.write_bytes(
        b'{"query": "a"}\n{"query": \n[1]\n"\xff"\n{"query": "b", "images": [["mixed"]]}\n{"query": 5}'
    )
    rows = [row for _, row in open_dataset(str(file)).rows()]
    assert [isinstance(row, RequestError) for row in rows] == [False, True, True, True, False, False]
    assert "line 2" in str(rows[1])
    assert "not a JSON object" in str(rows[2])


def test_a_csv_line_with_too_many_fields_costs_its_own_row(tmp_path: Path) -> None:
    file = tmp_path / "d.csv"
    file.write_text('query,images\nhow,a.png\nmany,a.png,b.png\n"two\nlines",b.png\n')
    rows = [row for _, row in open_dataset(str(file)).rows()]
    assert rows[0] == {"query": "how", "images": "a.png"}
    assert "line 3" in str(rows[1])
    assert rows[2] == {"query": "two\nlines", "images": "b.png"}


def test_a_folder_of_images_is_a_row_each(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "sub/c.webp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    data = open_dataset(str(tmp_path))
    assert [row["id"] for row in columns(data)] == ["a.JPG", "b.png", "sub/c.webp"]
    assert data.total == 3


def test_images_in_parquet_stay_encoded(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    features = datasets.Features({"query": datasets.Value("string"), "image": datasets.Image()})
    rows = [{"query": "q", "image": {"bytes": (tmp_path / "a.png").read_bytes(), "path": None}}]
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "d.parquet")
    ((_, row),) = open_dataset(str(tmp_path / "d.parquet")).rows()
    assert not isinstance(row, RequestError)
    assert row["image"]["bytes"] == (tmp_path / "a.png").read_bytes()


def test_of_several_splits_one_is_to_be_named(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(f'{{"query": "{split}"}}\n')
    with pytest.raises(VlmRunError, match=r"--split: .*train"):
        open_dataset(str(tmp_path))
    ((_, row),) = open_dataset(str(tmp_path), split="test").rows()
    assert row == {"query": "test"}
    with pytest.raises(VlmRunError, match="no split 'dev'"):
        open_dataset(str(tmp_path), split="dev")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing.jsonl", "there is no file"),
        ("./missing", "there is no file"),
        ("notes.txt", "unknown format"),
        ("empty", "neither images nor a dataset"),
        ("notes.txt#many", "not a number of rows"),
        ("broken.parquet", "cannot be read"),
        ("broken.json", "not a complete JSON"),
    ],
)
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, says: str
) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "broken.parquet").write_text("x")
    (tmp_path / "broken.json").write_text('[{"query": "a"}, {"que')
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VlmRunError, match=says):
        open_dataset(name)


def test_a_number_sign_in_a_files_name_is_part_of_it(tmp_path: Path) -> None:
    file = tmp_path / "d#1.jsonl"
    file.write_text('{"query": "a"}\n{"query": "b"}\n')
    assert len(list(open_dataset(str(file)).rows())) == 2
    assert len(list(open_dataset(f"{file}#1").rows())) == 1


# --- Data as people have it

ODD = '[{"query": "a", "id": 12345678901234567890123, "x": NaN, "y": 1e400}, {"query": "a\tb"}]'


@pytest.mark.parametrize(
    ("start", "encoding"),
    [("", "utf-8"), ("\ufeff", "utf-8"), ("  \n", "utf-8"), ("", "utf-16"), ("", "utf-32")],
)
def test_arrays_are_as_tolerant_as_lines(tmp_path: Path, start: str, encoding: str) -> None:
    (tmp_path / "d.json").write_text(start + ODD, encoding=encoding)
    lines = [json.dumps(row) for row in json.loads(ODD, strict=False)]
    (tmp_path / "d.jsonl").write_text(start + "\n".join(lines).replace("\\t", "\t"), encoding=encoding)
    for name in ("d.json", "d.jsonl"):
        dataset = open_dataset(str(tmp_path / name))
        (_, first), (_, second) = dataset.rows()
        assert dataset.total == 2
        assert not isinstance(first, RequestError)
        assert first["id"] == 12345678901234567890123
        assert first["x"] != first["x"]
        assert first["y"] == float("inf")
        assert second == {"query": "a\tb"}


def test_a_bad_entry_of_an_array_costs_its_own_row(tmp_path: Path) -> None:
    file = tmp_path / "d.json"
    file.write_text('[{"query": "a"}, {"query": }, [1, {"x": "]"}], 7, {"q": "\\", {"}, {"query": "b"},]')
    rows = [row for _, row in open_dataset(str(file)).rows()]
    assert [isinstance(row, RequestError) for row in rows] == [False, True, True, True, False, False]
    assert "entry 2 is not JSON" in str(rows[1])
    assert "entry 3 is not a JSON object, but of type list" in str(rows[2])


def test_objects_of_several_lines_follow_one_another(tmp_path: Path) -> None:
    file = tmp_path / "d.json"
    file.write_text("\n".join(json.dumps(row, indent=2) for row in ROWS))
    assert columns(open_dataset(str(file))) == ROWS


@given(rows=st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=30) | st.integers()), max_size=6))
def test_an_array_is_read_as_json_reads_it_in_pieces_of_any_size(rows: list[dict[str, Any]]) -> None:
    for chunk in (1, 3, 1000):
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(json_file, "_CHUNK", chunk)
            text = json.dumps(rows, ensure_ascii=False)
            entries = json_file._split_entries(io.StringIO(text), Path("d.json"))
            assert [json.loads(entry) for entry in entries] == rows


def write_rows_csv(path: Path, encoding: str, texts: list[str]) -> None:
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows([["query"], *([text] for text in texts)])


@pytest.mark.parametrize(
    ("encoding", "texts"),
    [
        ("gbk", ["图片里有几只羊？", "红色的圆在哪里？"]),
        ("cp1252", ["Wie viele Schafe gehören dazu?", "Où est le café crème?"]),
    ],
)
@pytest.mark.parametrize("name", ["d.csv", "d.jsonl"])
def test_another_encoding_is_asked_for_and_read(
    tmp_path: Path, encoding: str, texts: list[str], name: str
) -> None:
    path = tmp_path / name
    if name == "d.csv":
        write_rows_csv(path, encoding, texts)
    else:
        lines = (json.dumps({"query": text}, ensure_ascii=False) for text in texts)
        path.write_text("\n".join(lines), encoding=encoding)
    with pytest.raises(VlmRunError, match=r"is not in UTF-8\. .*--encoding"):
        open_dataset(str(path))
    rows = [row for _, row in open_dataset(str(path), encoding=encoding).rows()]
    assert rows == [{"query": text} for text in texts]
    with pytest.raises(VlmRunError, match="unknown --encoding 'gbq'"):
        open_dataset(str(path), encoding="gbq")


def test_a_byte_in_another_encoding_costs_its_own_row(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(b"query\nplain\ncaf\xe9\n\xc3\xa9t\xc3\xa9\n")
    plain, broken, valid = (row for _, row in open_dataset(str(tmp_path / "d.csv")).rows())
    assert (plain, valid) == ({"query": "plain"}, {"query": "été"})
    assert "line 3 has the byte 0xE9, which is not valid UTF-8. " in str(broken)
    assert "--encoding" in str(broken)


def test_csv_with_semicolons_has_columns_too(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("query;response\na, b;c\n")
    assert [row for _, row in open_dataset(str(tmp_path / "d.csv")).rows()] == [
        {"query": "a, b", "response": "c"}
    ]


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    for name in (
        *("a.png", "sub/b.jpg", "._a.png", "__MACOSX/._a.png", "__MACOSX/c.png"),
        *(".ipynb_checkpoints/a.png", ".hidden.jpg"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / ".ipynb_checkpoints" / "notes.json").write_text("{}")
    dataset = open_dataset(str(tmp_path))
    assert [row["id"] for row in columns(dataset)] == ["a.png", "sub/b.jpg"]
    assert dataset.notes == (f"5 hidden image files are skipped in {tmp_path}",)


def test_a_damaged_row_group_costs_its_own_rows(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    table = pa.table({"query": [f"{'x' * 200}{number}" for number in range(30)]})
    pq.write_table(table, path, row_group_size=10, compression="snappy", use_dictionary=False)
    content = bytearray(path.read_bytes())
    offset = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    content[offset : offset + 40] = bytes(40)
    path.write_bytes(bytes(content))
    rows = [row for _, row in open_dataset(str(path)).rows()]
    assert [isinstance(row, RequestError) for row in rows] == [False] * 10 + [True] * 10 + [False] * 10
