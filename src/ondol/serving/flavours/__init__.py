"""One module per library that models are made with; each imports its library only when a model needs it.

A flavour turns files into an `Artifact`. Must not choose files, check digests or decide what is trusted: that is
`loading`'s.
"""
