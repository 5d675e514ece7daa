"""KServe's inference protocols V1 and V2 over HTTP. Must not load models nor decide who serves."""
