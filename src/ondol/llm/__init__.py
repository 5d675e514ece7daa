"""Chat providers behind one port, and the extractive reader that answers when there is none.

Must not retrieve: passages are given to it.
"""
