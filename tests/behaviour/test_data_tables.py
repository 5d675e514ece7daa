"""Reading tables: every way a file can be wrong is one clear sentence, and what was guessed is noted."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from ondol.base import errors
from ondol.data import tables


def write(folder: Path, data: bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_csv_and_parquet_are_told_apart_by_content(tmp_path: Path) -> None:
    frame = pd.DataFrame({"나이": [31, 45], "지역": ["서울", "부산"]})
    frame.to_csv(tmp_path / "artifact", index=False)
    frame.to_parquet(tmp_path / "other")
    assert tables.read(tmp_path / "artifact").to_dict("list") == frame.to_dict("list")
    assert tables.read(tmp_path / "other").to_dict("list") == frame.to_dict("list")


def test_korean_excel_files_are_read_and_said_to_be(tmp_path: Path) -> None:
    frame = tables.read(write(tmp_path, "이름;나이\n김철수;31\n이영희;45\n".encode("cp949")))
    assert list(frame["이름"]) == ["김철수", "이영희"]
    assert frame.attrs["notes"] == ["read as CP949, because it is not UTF-8", "the delimiter is ';'"]


def test_a_byte_order_mark_is_not_part_of_the_first_name(tmp_path: Path) -> None:
    assert list(tables.read(write(tmp_path, "나이,지역\n1,서울\n".encode("utf-8-sig"))).columns) == ["나이", "지역"]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"  \n\n", "is empty"),
        (b"a,b\n", "has a header and no rows"),
        (b"a,b,a\n1,2,3\n", "two columns are called 'a'"),
        (b"1,2,3\n4,5,6\n", "the first line is numbers (1, 2, 3)"),
        (b"a,b\n1,2\n1,2,3,4\n", "is not a regular CSV"),
        (b"a,b\n\x80\xff\xfe,2\n", "byte 0x80 in line 2"),
        (b"PK\x03\x04rest", "is a ZIP or Excel file"),
        (b"PAR1 and then nothing of the kind", "is a damaged Parquet file"),
    ],
)
def test_what_is_no_table_is_refused_with_the_reason(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(errors.InputError) as caught:
        tables.read(write(tmp_path, data))
    assert says in caught.value.message
    assert caught.value.exit_code == 2


def test_a_parquet_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pd.DataFrame({"a": range(1000)}).to_parquet(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(errors.InputError, match="damaged"):
        tables.read(path)


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path, b"a\n1\n", "flights.csv")
    with pytest.raises(errors.NotFoundError) as caught:
        tables.read(tmp_path / "flight.csv")
    assert "flights.csv" in caught.value.way_out


def test_a_missing_column_names_the_nearest() -> None:
    frame = pd.DataFrame({"distance": [1], "해지여부": ["예"]})
    with pytest.raises(errors.InputError) as caught:
        tables.need_columns(frame, ["distanze"])
    assert (caught.value.message, caught.value.way_out) == ("no column 'distanze'", "Did you mean 'distance'?")
    with pytest.raises(errors.InputError) as caught:
        tables.need_columns(frame, ["해지 여부"])
    assert caught.value.way_out == "Did you mean '해지여부'?"
