"""The names NeMo Guardrails 0.24 knows, and who runs each: us, NeMo's runtime, or nobody here."""

from __future__ import annotations

import difflib

_SENSITIVE = ("mask sensitive data on", "detect sensitive data on")

NATIVE: dict[str, frozenset[str]] = {
    "input": frozenset(
        {
            "self check input",
            "jailbreak detection heuristics",
            "jailbreak detection model",
            "topic safety check input",
            "regex check input",
            *(f"{start} input" for start in _SENSITIVE),
        }
    ),
    "output": frozenset(
        {
            "self check output",
            "self check facts",
            "self check hallucination",
            "hallucination warning",
            "regex check output",
            *(f"{start} output" for start in _SENSITIVE),
        }
    ),
    "retrieval": frozenset({"regex check retrieval", *(f"{start} retrieval" for start in _SENSITIVE)}),
}
"""Flows that are checked in process."""

NEMO = frozenset(
    {
        "content safety check input",
        "content safety check output",
        "llama guard check input",
        "llama guard check output",
        "injection detection",
        "context bloat detection on input",
        "context bloat detection on retrieval",
        "alignscore check facts",
        "hf classifier check input",
        "hf classifier check output",
        "hf classifier check retrieval",
        "gliner detect pii on input",
        "gliner detect pii on output",
        "gliner detect pii on retrieval",
        "gliner mask pii on input",
        "gliner mask pii on output",
        "gliner mask pii on retrieval",
        "guardrailsai check input",
        "guardrailsai check output",
    }
)
"""Flows that only NeMo's own runtime can run (extra `nemo`)."""

SERVICES: dict[str, str] = {
    "activefence moderation on input": "ActiveFence",
    "activefence moderation on input detailed": "ActiveFence",
    "activefence moderation on output": "ActiveFence",
    "ai defense inspect prompt": "Cisco AI Defense",
    "ai defense inspect response": "Cisco AI Defense",
    "autoalign check input": "AutoAlign",
    "autoalign check output": "AutoAlign",
    "autoalign factcheck output": "AutoAlign",
    "autoalign groundedness output": "AutoAlign",
    "clavata check input": "Clavata",
    "clavata check output": "Clavata",
    "cleanlab trustworthiness": "Cleanlab",
    "crowdstrike aidr guard input": "CrowdStrike AIDR",
    "crowdstrike aidr guard output": "CrowdStrike AIDR",
    "detect pii on input": "Private AI",
    "detect pii on output": "Private AI",
    "detect pii on retrieval": "Private AI",
    "mask pii on input": "Private AI",
    "mask pii on output": "Private AI",
    "mask pii on retrieval": "Private AI",
    "f5 guardrails scan input": "F5",
    "f5 guardrails scan output": "F5",
    "fiddler user safety": "Fiddler",
    "fiddler bot safety": "Fiddler",
    "fiddler bot faithfulness": "Fiddler",
    "gcpnlp moderation": "Google Cloud NLP",
    "gcpnlp moderation detailed": "Google Cloud NLP",
    "pangea ai guard input": "Pangea",
    "pangea ai guard output": "Pangea",
    "patronus api check output": "Patronus",
    "patronus lynx check output hallucination": "Patronus",
    "policyai moderation on input": "PolicyAI",
    "policyai moderation on output": "PolicyAI",
    "polygraf detect pii on input": "Polygraf",
    "polygraf detect pii on output": "Polygraf",
    "polygraf detect pii on retrieval": "Polygraf",
    "polygraf mask pii on input": "Polygraf",
    "polygraf mask pii on output": "Polygraf",
    "polygraf mask pii on retrieval": "Polygraf",
    "protect prompt": "Prompt Security",
    "protect response": "Prompt Security",
    "trend ai guard input": "Trend Micro",
    "trend ai guard output": "Trend Micro",
}
"""Flows that send the text to a third party; refused, because nothing here may leave the machine unasked."""

ENTITIES: dict[str, str] = {
    "EMAIL_ADDRESS": "EMAIL",
    "PHONE_NUMBER": "PHONE",
    "CREDIT_CARD": "CARD",
    "IBAN_CODE": "IBAN",
    "IP_ADDRESS": "IP",
    "US_SSN": "SSN",
    "KR_RRN": "RRN",
    "KR_BRN": "BRN",
    "KR_PASSPORT": "PASSPORT",
    "KR_DRIVER_LICENSE": "DRIVER_LICENSE",
    "BANK_ACCOUNT": "ACCOUNT",
    "API_KEY": "SECRET",
}
"""Presidio's entity names (and three of ours) that we recognise, and the word that masks each."""

THRESHOLDS = ("injection", "injection_document", "credentials", "toxicity", "grounding")

TOP_WAY_OUT: dict[str, str] = {
    "instructions": "Say it in the prompt file: the application's prompt is what the LLM sees.",
    "sample_conversation": "Say it in the prompt file: the application's prompt is what the LLM sees.",
    "core": "Remove it.",
    "streaming": "Remove it: answers are checked as a whole.",
    "tracing": "Remove it: every decision is a span already.",
    "knowledge_base": "Build an index with `ondol index build` instead.",
    "docs": "Build an index with `ondol index build` instead.",
}

_MEANT: dict[str, dict[str, str]] = {
    "check topic": {"input": "self check input", "output": "self check output"},
    "check jailbreak": {"input": "jailbreak detection model"},
    "check facts": {"output": "self check facts"},
    "check hallucination": {"output": "self check hallucination"},
    "check input": {"input": "self check input"},
    "check output": {"output": "self check output"},
    "check toxicity": {"input": "self check input", "output": "self check output"},
    "check pii": {"input": "mask sensitive data on input", "output": "mask sensitive data on output"},
    "check sensitive data": {"input": "mask sensitive data on input", "output": "mask sensitive data on output"},
    "check prompt injection": {"input": "jailbreak detection model"},
}


def nearest(flow: str, channel: str) -> str:
    """Return the native flow that is most likely meant by a name that NeMo does not have."""
    if meant := _MEANT.get(flow, {}).get(channel):
        return meant
    known = sorted(NATIVE[channel])
    if near := difflib.get_close_matches(flow, known, n=1, cutoff=0.3):
        return near[0]
    return "mask sensitive data on retrieval" if channel == "retrieval" else f"self check {channel}"
