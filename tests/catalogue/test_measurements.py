"""Measurements as typed columns: the shipped files read whole; a bad cell is named by file, row and field."""

import gzip

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serried.catalogue.measurements import MEASUREMENTS, TABLES, file_of, read_measurements, recognise, typed_columns
from serried.errors import BadInput

GEMM = "chip,m,n,k,dtype,vllm_us\nmine,16,32,64,bfloat16,2.5\nmine,32,32,64,bfloat16,\n"
HEIGHTS = {"gemm": 36000, "attention_context": 18057, "attention_generation": 18903, "mla": 12119, "moe": 15000,
           "collectives_intra_node": 7866, "collectives": 220, "training": 680, "serving_points": 19,
           "serving_engines": 1279, "serving_published": 439, "serving_requests": 600}


def written(tmp_path, text, name="cases.csv"):
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("table", TABLES)
def test_shipped_tables_read_strictly_and_whole(table):
    frame = read_measurements(table)
    assert frame.height == HEIGHTS[table]
    for name, column in TABLES[table].columns.items():
        assert frame[name].dtype == {"text": pl.String, "count": pl.Int64, "number": pl.Float64}[column.holds]
        if column.required:
            assert frame[name].null_count() == 0


def test_the_index_names_every_table_and_every_file():
    files = {file_of(table) for table in TABLES}
    assert files == {path for path in MEASUREMENTS.rglob("*") if path.suffix in (".csv", ".gz")
                     and not (path.parent / "provenance.toml").exists()}   # a trace says itself where it comes from
    assert len(files) == len(TABLES)


@pytest.mark.parametrize("name", ["cases.csv", "cases.csv.gz"])
def test_a_users_table_may_lack_optional_columns_and_cells(tmp_path, name):
    frame = read_measurements("gemm", written(tmp_path, GEMM, name))
    assert frame["m"].to_list() == [16, 32]
    assert frame["vllm_us"].to_list() == [2.5, None]
    assert frame["trtllm_us"].to_list() == [None, None]


@pytest.mark.parametrize(("old", "new", "row", "field"), [
    ("16,32,64", "16,x,64", 2, "n"), ("16,32,64", "16,,64", 2, "n"), ("16,32,64", "16,0,64", 2, "n"),
    ("16,32,64", "1.5,32,64", 2, "m"), ("2.5", "-2.5", 2, "vllm_us"), ("2.5", "nan", 2, "vllm_us"),
    ("2.5", "inf", 2, "vllm_us"), ("mine,32", ",32", 3, "chip"), ("2.5", "1e300", 2, "vllm_us")])
def test_a_bad_cell_is_named(tmp_path, old, new, row, field):
    path = written(tmp_path, GEMM.replace(old, new))
    with pytest.raises(BadInput) as caught:
        read_measurements("gemm", path)
    assert caught.value.field == f"row {row}, {field}"
    assert caught.value.file == str(path)


def test_the_patient_reader_keeps_the_good_rows_and_says_why_of_the_others():
    frame = pl.DataFrame({"chip": ["a", "b", "c"], "m": ["16", "zero", None], "n": ["1"] * 3, "k": ["1"] * 3,
                          "dtype": ["bfloat16"] * 3, "mine": ["x", "y", "z"]})
    typed, reasons = typed_columns(frame, "gemm")
    assert typed["m"].to_list() == [16, None, None]
    assert typed["mine"].to_list() == ["x", "y", "z"]
    assert reasons[0] is None
    assert reasons[1] == "m: a whole number from 1 to 9.0072e+15, not 'zero'"
    assert reasons[2] == "m: a whole number from 1 to 9.0072e+15; the cell is blank"


def test_a_missing_column_gets_the_nearest_one(tmp_path):
    with pytest.raises(BadInput, match="'dtyp' is meant"):
        read_measurements("gemm", written(tmp_path, GEMM.replace("dtype", "dtyp")))


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02", b"chip,m\n"])
def test_what_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / "odd.csv"
    path.write_bytes(content)
    with pytest.raises(BadInput):
        read_measurements("gemm", path)
    with pytest.raises(BadInput):
        read_measurements("gemm", tmp_path / "none.csv")
    with pytest.raises(BadInput, match="Nearest: gemm"):
        read_measurements("gem")


def test_a_header_tells_its_table():
    for name, table in TABLES.items():
        assert TABLES[recognise(table.columns)].columns == table.columns, name
    assert recognise(["chip", "m", "n", "k", "dtype", "vllm_us"]) == "gemm"
    with pytest.raises(BadInput, match="Nearest: gemm, which lacks dtype"):
        recognise(["chip", "m", "n", "k"])


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "cases.csv"
    path.write_bytes(content)
    with pytest.raises(BadInput):
        read_measurements("gemm", path)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(GEMM) - 1), st.text(max_size=4))
def test_a_mangled_table_is_read_or_refused(tmp_path_factory, position, insertion):
    path = tmp_path_factory.mktemp("fuzz") / "cases.csv"
    path.write_text(GEMM[:position] + insertion + GEMM[position + 1:], encoding="utf-8", errors="surrogatepass")
    try:
        read, refused_file = read_measurements("gemm", path).height, str(path)
    except BadInput as error:
        read, refused_file = 1, error.file
    assert read >= 1
    assert refused_file == str(path)
