"""The stages of the loop, in the order data flows through them."""

from __future__ import annotations

STAGES = ("check", "pipeline", "evaluate", "gate", "register", "serve", "canary", "monitor", "respond")
