"""Tests, by what they look at: behaviour, contracts, faults, the field's own files, the browser."""
