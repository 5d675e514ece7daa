"""Kubernetes-style resources, declared once: what a field is, and what it does on this machine.

One declaration per kind gives validation, refusals with paths, defaults, the OpenAPI schema and the compatibility
tables. Must not know what a kind means, nor read files.
"""
