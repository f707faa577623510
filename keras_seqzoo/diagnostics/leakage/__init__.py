"""State leakage: history dependence of the output.

It is the share of the output's variance that is due to inputs before the present one (total Sobol
index of the past). It has nothing to do with train/test data leakage.
"""
