"""Controllers that turn applied resources into processes on this machine."""
