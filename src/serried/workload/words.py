"""Jobs as people write them: `8192x1024`, `512/128@64`."""

from __future__ import annotations

import re

from serried.errors import BadInput
from serried.workload.spec import Model, Serving, Training

__all__ = ["serving_of", "training_of"]

_WHOLE = "([1-9][0-9]{0,8})"
_TRAIN = re.compile(f"{_WHOLE}x{_WHOLE}")
_SERVE = re.compile(f"{_WHOLE}/{_WHOLE}@{_WHOLE}")


def training_of(text: str, model: Model, *, field: str, file: str = "") -> Training:
    """SEQxGLOBAL_BATCH: tokens per sequence x sequences per step. Raises BadInput, which names field and file."""
    sequence_tokens, global_batch = _numbers(_TRAIN, text, "SEQxGLOBAL_BATCH", "8192x1024", field, file)
    return Training(model=model, sequence_tokens=sequence_tokens, global_batch_sequences=global_batch)


def serving_of(text: str, model: Model, *, field: str, file: str = "") -> Serving:
    """INPUT/OUTPUT@CONCURRENCY: tokens in / tokens out @ requests in flight by deployment. Raises BadInput as above."""
    input_tokens, output_tokens, concurrency = _numbers(_SERVE, text, "INPUT/OUTPUT@CONCURRENCY", "512/128@64", field,
                                                        file)
    return Serving(model=model, input_tokens=input_tokens, output_tokens=output_tokens, concurrency=concurrency)


def _numbers(pattern: re.Pattern[str], text: str, form: str, example: str, field: str, file: str) -> list[int]:
    match = pattern.fullmatch(text.strip())
    if match is None:
        raise BadInput(file=file, field=field, value=text, expected=f"{form}, whole numbers above 0 and below 1e9",
                       remedy=f"Write for example {example}.")
    return [int(part) for part in match.groups()]
