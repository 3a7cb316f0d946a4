"""How is one job laid over chips?

In: a job and a machine. Out: every legal layout as columns, its step time by cause, its memory by cause, and the best.
"""
