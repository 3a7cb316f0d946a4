"""What is computed?

In: a model's `config.json` or catalogue file, and a job. Out: a `Model`, its parameter count, and the operators that
one block asks of one chip, forward and backward, in training, prefill and decode, with shapes as columns.
"""
