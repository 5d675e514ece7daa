"""Who serves whom, how a trial is judged, and how its verdict is carried out.

Must not serve requests, evaluate models offline or know any HTTP protocol: it reads and writes rows.
"""
