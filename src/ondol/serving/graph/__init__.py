"""Inference graphs: one request through several services, as KServe's router sends it.

Must not know how a service is reached.
"""
