"""Metrics, suites and paired comparisons. Must not decide: that is the gates' part."""
