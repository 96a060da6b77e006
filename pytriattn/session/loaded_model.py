"""A loaded model: its tokenizer, its facts and embeddings. `Session` adds a context."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pytriattn._native import core
from pytriattn.errors import ClosedError, InvalidTokenError
from pytriattn.gguf.identity import ModelIdentity
from pytriattn.options.rope import RopeSettings
from pytriattn.session.adapters import Adapters
from pytriattn.session.embeddings import EmbeddingResponse, embeddings

__all__ = ["LoadedModel"]


class LoadedModel:
    """A model without a context."""

    def __init__(
        self, model: core.Model, identity: ModelIdentity, path: str, n_threads: int, rope: RopeSettings
    ) -> None:
        """Hold a model that has been loaded from `path`; `n_threads` and `rope` are for embeddings."""
        self._model: core.Model | None = model
        self._metadata = model.metadata
        self._identity = identity
        self._n_threads = n_threads
        self._rope = rope
        self._adapters: Adapters | None = None
        self._model_path = path

    # -- text
    # ------------------------------------------------------------------------------------------------------------------

    def tokenize(self, text: str | bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """Return the token ids of a text.

        Args:
            text: the text (bytes: UTF-8).
            add_bos: add the tokens that the model wants around a text, if it wants any.
            special: read control tokens such as ``<|im_end|>`` as tokens, not as text.

        Raises:
            UnsupportedModelError: the model file has no tokenizer.
        """
        if isinstance(text, str):
            text = text.encode("utf-8", errors="surrogateescape")
        return self._open_model().tokenize(text, add_bos, special)

    def tokenize_prompt(self, text: str | bytes) -> list[int]:
        """Return the token ids of a prompt, with its control tokens as tokens.

        The token that begins a text is added if the model wants one; the token that ends a text is not.
        """
        tokens = self.tokenize(text, special=True)
        if tokens and tokens[-1] == self.token_eos():
            plain = self.tokenize(text, add_bos=False, special=True)
            if tokens[len(tokens) - 1 - len(plain) : -1] == plain:
                tokens.pop()
        return tokens

    def detokenize(self, tokens: Iterable[int], special: bool = False) -> str:
        """Return the text of token ids; bytes that are not UTF-8 become U+FFFD.

        Args:
            tokens: ids.
            special: also write control tokens.

        Raises:
            InvalidTokenError: an id is not in the vocabulary.
        """
        return b"".join(self.token_bytes(token, special) for token in tokens).decode("utf-8", errors="replace")

    def token_bytes(self, token: int, special: bool = False) -> bytes:
        """Return the bytes that a token stands for; they may be a part of a character."""
        return self._open_model().piece(int(token), special)

    def check_tokens(self, tokens: Sequence[int] | npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int32]:
        """Return token ids as int32 [n_tokens].

        Raises:
            InvalidTokenError: they are not whole numbers, not in the vocabulary, or there are none.
        """
        model = self._open_model()
        array = np.asarray(tokens)
        if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
            raise InvalidTokenError(
                f"tokens are {array.dtype} of shape {list(array.shape)}, they must be whole numbers [n_tokens]"
            )
        if array.size == 0:
            raise InvalidTokenError("the prompt is empty; give at least one token")
        wrong = array[(array < 0) | (array >= model.n_vocab)]
        if wrong.size:
            raise InvalidTokenError(f"token {wrong[0]} is not in the vocabulary of {model.n_vocab}")
        return array.astype(np.int32)

    def embed(
        self, texts: str | Sequence[str], *, pooling: str = "mean", normalize: bool = False
    ) -> npt.NDArray[np.float32] | list[npt.NDArray[np.float32]]:
        """Return embeddings of texts: the last layer's output, pooled. The cache is not touched.

        They are those of the model with the LoRA adapters and the RoPE settings in use.

        Args:
            texts: one text, or several.
            pooling: ``mean`` over tokens, the ``last`` or the first (``cls``) one, or ``none``.
            normalize: to unit length.

        Returns:
            float32 [n_embd] for a text, [n, n_embd] for n texts. Without pooling [n_tokens, n_embd], or a list of
            these.

        Raises:
            InvalidTokenError: a text is empty, or there are none.
            ContextError: `pooling` is unknown.
        """
        several = not isinstance(texts, str)
        tokens = [self.check_tokens(self.tokenize(text)) for text in ([texts] if isinstance(texts, str) else texts)]
        if not tokens:
            raise InvalidTokenError("there are no texts to embed; give at least one")
        found = embeddings(
            self._open_model(),
            tokens,
            pooling=pooling,
            normalize=normalize,
            n_threads=self._n_threads,
            rope=self._rope.to_native(),
            loras=[] if self._adapters is None else self._adapters.in_use,
        )
        if pooling == "none":
            return found if several else found[0]
        return np.concatenate(found) if several else found[0][0]

    def create_embedding(self, input: str | Sequence[str], model: str | None = None) -> EmbeddingResponse:
        """Return embeddings of texts in OpenAI's form, pooled over tokens.

        Args:
            input: one text, or several.
            model: only named in the answer; None: the model's own name.

        Raises:
            InvalidTokenError: a text is empty, or there are none.
        """
        texts = [input] if isinstance(input, str) else list(input)
        n_tokens = sum(len(self.tokenize(text)) for text in texts)
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "index": i, "embedding": [float(x) for x in row]}
                for i, row in enumerate(self.embed(texts))
            ],
            "model": model or self._identity.name,
            "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
        }

    # -- facts
    # -----------------------------------------------------------------------------------------------------------------

    @property
    def metadata(self) -> dict[str, str]:
        """The model's GGUF metadata as text (no arrays)."""
        return dict(self._metadata)

    @property
    def identity(self) -> ModelIdentity:
        """Which model this is, as statistics name it."""
        return self._identity

    @property
    def model_path(self) -> str:
        """The model's file."""
        return self._model_path

    def n_embd(self) -> int:
        """Return the size of an embedding."""
        return self._open_model().n_embd

    def n_vocab(self) -> int:
        """Return the size of the vocabulary."""
        return self._open_model().n_vocab

    def token_bos(self) -> int:
        """Return the id of the token that begins a text."""
        return self._open_model().bos

    def token_eos(self) -> int:
        """Return the id of the token that ends a text."""
        return self._open_model().eos

    def token_nl(self) -> int:
        """Return the id of the token that begins a new line; -1: there is none."""
        return self._open_model().newline

    def is_end(self, token: int) -> bool:
        """Return whether a token ends a text."""
        return self._open_model().is_end(token)

    def make_sampler(self, settings: core.SamplingSettings) -> core.Sampler:
        """Return a sampler of this model's tokens.

        Raises:
            GrammarError: the settings' grammar cannot be used.
        """
        return core.Sampler(self._open_model(), settings)

    def _open_model(self) -> core.Model:
        if self._model is None:
            raise ClosedError("this Llama has been closed")
        return self._model
