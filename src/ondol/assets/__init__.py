"""Data files that ship with the package. Each says how it was made."""
