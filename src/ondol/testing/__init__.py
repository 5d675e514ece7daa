"""Fakes that are shipped: for the tests of this project and of its users."""
