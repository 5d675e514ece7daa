"""The command line: thin. Each command is one module here; commands import what they need when they run.

Must not hold logic that a library user would miss.
"""
