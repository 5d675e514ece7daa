"""One module per migration, applied in the order of their names."""
