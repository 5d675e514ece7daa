"""Rails: fast checks in process, LLM checks through a callable, the NeMo runtime for Colang, output validation.

Must not import scikit-learn, torch or NeMo when loaded: a check is numpy and plain Python.
"""
