"""KServe's kinds: what every field of theirs is, and what it does on this machine.

The declarations are plain data in the words of `formats.resource`; `kinds` finds one by apiVersion and kind. Must not
start, load or route anything.
"""
