"""What `ondol check` can check: one module per kind of foreign file, found in this list and imported when needed.

A checker has `claims(file)`, whether a file is of its kind; `check(file)`, what is to be said of it; and, where it can
mend something, `fix(file)`, which returns the mended text, or the same. To check one more kind of file, write such a
module and name it here; the first that claims a file has it.
"""

CHECKERS = ("project", "manifests", "pipelines", "rails", "suites", "prompts")
