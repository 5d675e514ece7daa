"""The nouns that flow between the stages: frozen, typed, no I/O.

Stages do not import each other; they share these. Every record goes to JSON and back with `codec`.
"""
