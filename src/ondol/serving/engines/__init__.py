"""Engines: what computes predictions. The model as it is, or a compiled form of it that a self-test found the same.

`compiled.choose` is the way in. An engine takes rows that `serving.inputs` has checked. Must not know protocols.
"""
