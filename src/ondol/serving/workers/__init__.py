"""Processes beside the data plane, for what cannot run inside it: containers of KServe's files, other versions."""
