"""Which physical parameters explain what was measured?

In: measured kernels, collectives and runs: the calibrate rows of the shipped measurements (`python -m
serried.calibration` rebuilds every shipped profile from them), or a user's own files. Out: parameters with residuals,
as profile and stack files. Import what is needed by its module (`serried.calibration.own`, ...): fits need scipy.
"""
