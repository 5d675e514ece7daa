"""Documents, chunks, embeddings, index snapshots, hybrid search, and the port other vector stores plug into.

Must not answer questions: it finds passages. Heavy libraries (the embedding model, the PDF reader, LangChain) are
imported by the one module that wraps each, when it is used.
"""
