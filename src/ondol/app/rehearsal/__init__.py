"""The drill: what the loop does when something goes wrong, on a copy of the project, with its own home and ports."""
