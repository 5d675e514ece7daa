"""OpenAI's HTTP API: chat completions, models and embeddings, for applications and as a gateway to providers."""
