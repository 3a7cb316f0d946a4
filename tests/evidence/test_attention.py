from __future__ import annotations

import zlib

import numpy as np
import polars as pl
import pytest

from serried.compiler.attention_cases import attention_cases
from serried.evidence.attention import COLUMNS, evaluate
from serried.evidence.harness import MEASUREMENTS, read_cases
from serried.evidence.spec import CaseResults

FILES = {"context": "attention_context", "generation": "attention_generation", "mla": "mla"}


@pytest.fixture(scope="module")
def results() -> dict[str, CaseResults]:
    return {kind: evaluate(read_cases(MEASUREMENTS / f"kernels/{name}.csv.gz")) for kind, name in FILES.items()}


def error(results: CaseResults, **groups: str) -> np.ndarray:
    """exp(|ln ratio|) - 1 of the predicted validate cases of a group."""
    chosen = np.array([split == "validate" and reason is None for split, reason in
                       zip(results.split, results.skipped, strict=True)])
    for name, value in groups.items():
        chosen &= np.array(results.groups[name]) == value
    assert chosen.sum() > 200, f"few cases of {groups}"
    return np.expm1(np.abs(np.log(results.predicted[chosen] / results.measured[chosen])))


@pytest.mark.parametrize("kind", ["context", "generation"])
@pytest.mark.parametrize("chip", ["a100_sxm", "h100_sxm", "b200_sxm"])
def test_shapes_not_fitted(results: dict[str, CaseResults], kind: str, chip: str) -> None:
    assert np.median(error(results[kind], chip=chip)) <= 0.12


@pytest.mark.parametrize("kind", ["context", "generation"])
@pytest.mark.parametrize("chip", ["a100_sxm", "h100_sxm", "b200_sxm"])
def test_shapes_not_fitted_in_sixteen_bits(results: dict[str, CaseResults], kind: str, chip: str) -> None:
    found = error(results[kind], chip=chip, format="bf16")
    assert np.median(found) <= 0.09
    assert np.quantile(found, 0.9) <= 0.30


@pytest.mark.parametrize("kind", ["MLA context", "MLA generation"])
def test_latent_attention(results: dict[str, CaseResults], kind: str) -> None:
    assert np.median(error(results["mla"], kind=kind)) <= 0.15


def test_one_library_a_chip_and_format_and_every_skip_has_its_reason(results: dict[str, CaseResults]) -> None:
    for one in results.values():
        used = {(chip, variant, library) for chip, variant, kind, library, reason in
                zip(one.groups["chip"], one.groups["format"], one.groups["kind"], one.groups["library"], one.skipped,
                    strict=True) if reason is None}
        assert len({(chip, variant) for chip, variant, _ in used}) == len(used)
        predicted = np.isfinite(one.predicted)
        assert (predicted == np.array([reason is None for reason in one.skipped])).all()
        assert all(reason is None or len(reason) > 10 for reason in one.skipped)


def test_split_is_drawn_over_shape_families(results: dict[str, CaseResults]) -> None:
    frame = pl.read_csv(MEASUREMENTS / "kernels/attention_context.csv.gz").head(200)
    cases = attention_cases(frame)
    for row, key, validate in zip(frame.iter_rows(named=True), cases.key, cases.validate, strict=True):
        assert key == (f"{row['num_heads']},{row['num_key_value_heads']},{row['head_dim']},{int(row['window_size'])}")
        assert validate == (zlib.crc32(key.encode()) % 2 == 1)


def one_case(**changed: str) -> pl.DataFrame:
    cells = {"chip": "h100_sxm", "batch_size": "4", "isl": "2048", "num_heads": "32", "num_key_value_heads": "8",
             "head_dim": "128", "attn_dtype": "bfloat16", "kv_cache_dtype": "bfloat16", "step": "0", "window_size": "0",
             "time_us": "700"}
    return pl.DataFrame({name: [value] for name, value in (cells | changed).items()})


class TestUserFiles:
    def test_a_plain_time_column_will_do(self) -> None:
        found = evaluate(one_case())
        assert found.skipped == [None]
        assert found.measured[0] == pytest.approx(700)
        assert 200 < found.predicted[0] < 1500

    def test_a_chip_without_a_profile_of_its_own(self) -> None:
        found = evaluate(one_case(chip="mi300x"))
        assert found.skipped == [None]
        assert found.evidence_class == ["data sheet only"]
        assert found.split == ["validate"]

    @pytest.mark.parametrize(("changed", "reason"), [
        ({"chip": "no-such-chip"}, "no-such-chip"), ({"isl": "many"}, "isl"), ({"time_us": ""}, "not measured"),
        ({"batch_size": "-3"}, "batch_size")])
    def test_a_bad_row_says_why(self, changed: dict[str, str], reason: str) -> None:
        found = evaluate(one_case(**changed))
        assert reason in (found.skipped[0] or "")
        assert np.isnan(found.predicted[0])

    def test_columns_tell_the_tables_apart(self) -> None:
        for name in FILES.values():
            columns = set(pl.read_csv(MEASUREMENTS / f"kernels/{name}.csv.gz", n_rows=1).columns)
            assert any(set(one) <= columns for one in COLUMNS)
