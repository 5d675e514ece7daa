"""Our own JSON API under `/api/ondol`, and the guard in front of every path of the control process."""
