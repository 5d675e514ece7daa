"""MLflow's own server inside our control process, and what our door adds to it: translations, audit, a fast path.

The only rooms that may import mlflow are this one and `registry`.
"""
