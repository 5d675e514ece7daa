"""The demo: both acts of the loop on real data. Composes what the product has; nothing here is a feature of its own.

Nothing is scripted to succeed: the acts send requests and print what the conductor decided.
"""
