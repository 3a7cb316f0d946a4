"""Jobs as people write them."""

import pytest

from serried.errors import BadInput
from serried.workload.words import serving_of, training_of
from tests.workload.models import LLAMA, model

DENSE = model(LLAMA)


def test_training_by_hand():
    job = training_of(" 8192x1024 ", DENSE, field="--train")
    assert (job.sequence_tokens, job.global_batch_sequences) == (8192, 1024)


def test_serving_by_hand():
    job = serving_of("512/128@64", DENSE, field="--serve")
    assert (job.input_tokens, job.output_tokens, job.concurrency) == (512, 128, 64)


@pytest.mark.parametrize("text", ["", "8192", "x", "0x4", "8x-1", "8x1.5", "8x4x2", "1٣x4", "9999999999x1", "8 x 4"])
def test_other_words_are_refused_by_field_and_example(text):
    with pytest.raises(BadInput, match=r"class\[0\].train.*8192x1024"):
        training_of(text, DENSE, field="class[0].train", file="fleet.toml")


@pytest.mark.parametrize("text", ["512/128", "512@64", "0/1@1", "512/128@0", "512/128@64@2"])
def test_serving_wants_all_three(text):
    with pytest.raises(BadInput, match=r"--serve.*512/128@64"):
        serving_of(text, DENSE, field="--serve")
