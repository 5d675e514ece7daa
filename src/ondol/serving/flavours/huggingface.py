"""Hugging Face folders: text classification and embeddings, answered as KServe's Hugging Face server does.

A classifier answers the number of the likeliest class; a model without a head answers embeddings, the mean of its last
hidden states over the text's tokens, of length one. Only safetensors weights are read, and no code of the folder runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.base import errors
from ondol.serving import describing
from ondol.serving.artifacts import Artifact
from ondol.serving.flavours import requiring
from ondol.serving.inputs import InputSpec

_OTHER_HEADS = ("QuestionAnswering", "TokenClassification", "MultipleChoice", "MaskedLM", "CausalLM")


def load(folder: Path) -> Artifact:
    """Return the model in a folder as `save_pretrained` writes it, with its tokenizer.

    :raises InputError: INP-221 when it is no such folder, INP-222 when it cannot be read.
    :raises UnsupportedError: UNS-391 when the model does something else.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise errors.InputError("no config.json in the folder", where=str(folder), code="INP-221")
    architecture = str((json.loads(config.read_text(encoding="utf-8")).get("architectures") or [""])[0])
    classifies = architecture.endswith("ForSequenceClassification")
    if not classifies and (not architecture.endswith("Model") or architecture == "EncoderDecoderModel"):
        raise errors.UnsupportedError(
            f"{architecture or 'the model'!r} neither classifies texts nor embeds them",
            where=str(config),
            way_out="Language models are served by LLM applications.",
            code="UNS-391",
        )
    torch, transformers = requiring.module("torch"), requiring.module("transformers")
    torch.set_num_threads(1)
    kind = transformers.AutoModelForSequenceClassification if classifies else transformers.AutoModel
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        model = kind.from_pretrained(str(folder), local_files_only=True, use_safetensors=True).eval()
    except (OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
        reason = f"transformers cannot load the model: {str(error).strip().splitlines()[0]}"
        raise errors.InputError(reason, where=str(folder), code="INP-222") from error
    adapter = (Classifier if classifies else Embedder)(torch, tokenizer, model)
    outputs = describing.outputs(getattr(adapter, "classes_", None), "FP32")
    return Artifact(adapter, "huggingface", spec=InputSpec(1, ("text",), ("text",), outputs=outputs))


class _Texts:
    def __init__(self, torch: Any, tokenizer: Any, model: Any) -> None:
        self._torch = torch
        self._tokenizer = tokenizer
        self._model = model
        longest = getattr(model.config, "max_position_embeddings", None)
        self._longest = min(int(longest or 512), int(tokenizer.model_max_length))

    def _run(self, rows: Any) -> tuple[Any, Any]:
        texts = [str(text) for text in rows[:, 0]]
        tokens = self._tokenizer(texts, padding=True, truncation=True, max_length=self._longest, return_tensors="pt")
        with self._torch.inference_mode():
            return self._model(**tokens), tokens["attention_mask"]


class Classifier(_Texts):
    """Answers the likeliest class' number, or all classes' probabilities."""

    def __init__(self, torch: Any, tokenizer: Any, model: Any) -> None:
        super().__init__(torch, tokenizer, model)
        self.classes_ = np.arange(int(model.config.num_labels))

    def predict(self, rows: Any) -> NDArray[Any]:
        """Return one class for each text, shape (n,)."""
        return np.asarray(self._run(rows)[0].logits.argmax(dim=-1).numpy())

    def predict_proba(self, rows: Any) -> NDArray[np.float64]:
        """Return the probabilities, shape (n, classes)."""
        return np.asarray(self._run(rows)[0].logits.softmax(dim=-1).numpy(), dtype=np.float64)


class Embedder(_Texts):
    """Answers one vector of length one for each text."""

    def predict(self, rows: Any) -> NDArray[Any]:
        """Return the vectors, shape (n, dimensions)."""
        found, mask = self._run(rows)
        weights = mask.unsqueeze(-1).to(found.last_hidden_state.dtype)
        mean = (found.last_hidden_state * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)
        return np.asarray(self._torch.nn.functional.normalize(mean, p=2, dim=1).numpy())
