"""The web pages at `/`: server-rendered, in Korean and English, with no script or font from anywhere else.

Must not write: everything that changes something is a command or an API call.
"""
