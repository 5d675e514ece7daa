"""The composition root: the entry points of our processes, which may import everything below and wire it together.

Must not hold logic that another room would miss.
"""
