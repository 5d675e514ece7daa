"""Stage 1: is this table what it should be (validation), what is in it (profile), has it changed (drift).

Must not train, serve or decide: findings are handed to the loop, which decides.
"""
