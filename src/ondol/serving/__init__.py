"""Serving of models: loading, compiling, batching, the request log. Must not know HTTP nor decide rollouts."""
