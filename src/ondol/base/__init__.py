"""Small mechanics every other room stands on: errors, settings, time, hashing, ids.

Must not import anything of Ondol's above it, nor any heavy third party.
"""
