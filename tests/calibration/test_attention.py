from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest

from serried.calibration.attention import fit_attention
from serried.compiler import read_profile
from serried.compiler.attention_cases import attention_cases, case_time_s
from serried.errors import BadInput
from serried.silicon import read_chip


def table(*, decode: bool, library: str = "time_us") -> pl.DataFrame:
    """A user's table: 16 head layouts x 12 lengths x 3 batches, timed by the h100 profile itself."""
    rows = [(batch, 1 if decode else tokens, heads, heads // group, width, tokens if decode else 0)
            for heads in (8, 16, 32, 64) for group in (1, 4) for width in (64, 128)
            for tokens in (16, 64, 128, 256, 512, 1024, 1500, 2048, 4096, 6000, 8192, 16384) for batch in (1, 8, 32)]
    names = ("batch_size", "isl", "num_heads", "num_key_value_heads", "head_dim", "step")
    frame = pl.DataFrame(rows, schema=list(names), orient="row").with_columns(
        chip=pl.lit("h100"), attn_dtype=pl.lit("bfloat16"), kv_cache_dtype=pl.lit("bfloat16"), window_size=pl.lit(0.0),
        **{library: pl.lit(1.0)})
    cases = attention_cases(frame)
    family = "decode" if decode else "attention"
    time_s = case_time_s(cases.shape, family, "bf16", chip=read_chip("h100"),
                         parameters=read_profile("h100").families[family]["bf16"])
    return frame.with_columns(pl.Series(library, time_s * 1e6))


@pytest.mark.parametrize("decode", [False, True])
def test_times_made_by_the_model_are_found_again(decode: bool) -> None:
    fitted, = fit_attention(table(decode=decode), read_chip("h100"))
    assert fitted.validate.any()
    assert (~fitted.validate).any()
    assert np.median(fitted.error[fitted.validate]) < 0.04
    assert np.quantile(fitted.error, 0.9) < 0.15


def test_only_calibrate_rows_are_seen() -> None:
    frame = table(decode=True)
    plain, = fit_attention(frame, read_chip("h100"))
    spoiled = frame.with_columns(time_us=pl.when(pl.Series(plain.validate)).then(pl.col("time_us") * 7).otherwise(
        pl.col("time_us")))
    again, = fit_attention(spoiled, read_chip("h100"))
    assert again.parameters == plain.parameters
    assert np.median(again.error[again.validate]) > 3


def test_a_users_few_rows_are_all_fitted_on_request() -> None:
    fitted, = fit_attention(table(decode=True), read_chip("h100"), holdout=False)
    assert not fitted.validate.any()
    assert fitted.fit.rows == len(fitted.rows)


def test_fitted_parameters_stay_in_their_ranges() -> None:
    fitted, = fit_attention(table(decode=True), read_chip("h100"))
    for column in dataclasses.fields(fitted.parameters):
        if "low" in column.metadata:
            assert column.metadata["low"] <= getattr(fitted.parameters, column.name) <= column.metadata["high"]


def test_which_library_is_never_guessed() -> None:
    two = table(decode=True, library="one_us").with_columns(other_us=pl.lit(5.0))
    with pytest.raises(BadInput, match="library"):
        fit_attention(two, read_chip("h100"))
    assert fit_attention(two, read_chip("h100"), "one")[0].fit.library == "one"
    with pytest.raises(BadInput, match="third"):
        fit_attention(two, read_chip("h100"), "third")


def test_too_few_rows_say_so() -> None:
    with pytest.raises(BadInput, match="20"):
        fit_attention(table(decode=False).head(5), read_chip("h100"))
