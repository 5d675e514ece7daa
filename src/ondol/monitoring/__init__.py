"""Watching what runs: the usage ledger, prices, budgets, traces, alerts.

Must not decide about releases: that is `rollout`. Must not call a model.
"""
