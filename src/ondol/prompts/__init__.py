"""Prompt files, commits, tags, rendering and the git view. Must not call an LLM nor know an application."""
