"""Rules that turn comparisons and scores into pass, fail or not-enough-data. Pure; must not read or write anything."""
