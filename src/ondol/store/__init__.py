"""What Ondol remembers: one SQLite file (WAL) or one Postgres database, and content-addressed blobs.

Query modules (`releases`, `routes`, …) are the only places with SQL. Must not decide anything.
"""
