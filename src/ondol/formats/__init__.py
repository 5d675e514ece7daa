"""Text <-> record, pure: the field's files become typed records here.

Must not touch a store, a network or a process.
"""
