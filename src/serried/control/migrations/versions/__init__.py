"""The steps, oldest first."""

#: Files of this folder in the order in which they are walked.
STEPS = ("first_tables",)
