"""The `Llama` class: a GGUF model that reads and generates text, within a KV-cache budget if one is set."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pytriattn._native import core
from pytriattn._native.log import enable_verbose
from pytriattn.errors import ContextError
from pytriattn.generation.batch import complete_batch
from pytriattn.generation.chat import ChatRequest, chat
from pytriattn.generation.chat_types import ChatChunk, ChatCompletion
from pytriattn.generation.completion import Completion, CompletionChunk, complete
from pytriattn.generation.question import AUTO, find_question
from pytriattn.generation.sampling import SamplingParams
from pytriattn.generation.token_stream import Generation, token_limit
from pytriattn.gguf.hub import download, local_file
from pytriattn.options.cache import CacheOptions, cache_type, flash_attention
from pytriattn.options.drafting import DraftModel, drafting_rule
from pytriattn.options.eviction import DEFAULT_MODE, Chooser, EvictionSettings, KeyScoreOptions
from pytriattn.options.rope import RopeSettings
from pytriattn.session.adapters import LoraScales
from pytriattn.session.images import text_of
from pytriattn.session.opening import DeviceOptions, open_model
from pytriattn.session.session import Session
from pytriattn.stats.model_stats import TriAttentionStats

__all__ = ["Llama"]


class Llama(Session):
    """A model with one context.

    Use it from one thread at a time; a second one gets `BusyError`. A context manager; `close` frees its memory.

    Args:
        model_path: a GGUF file.
        triattn_stats: a ``.triattention`` file or `TriAttentionStats`. None with a budget: the model is calibrated at
            load on a short text that ships with the package, and the result is kept in the user's cache folder.
        budget: keys kept per layer and KV head. None: the full cache of ``n_ctx`` tokens.
        mode: how keys are chosen. ``fitted``: by the attention that they can expect, have received, and get from
            questions. By the published score: ``per_layer_head``, ``per_head``, ``per_layer`` or ``global``, by what
            keeps a set of its own. For comparison: ``recent`` (the newest keys), ``random``. ``custom``: by a rule of
            your own. None: ``fitted``, or ``per_layer_head`` with statistics that are not fitted (`StatsWarning`).
        chooser: with ``mode="custom"``, called at each eviction with a view of the cache: ``position``, ``n_keep``,
            ``positions``, ``is_protected`` and ``layers``, of which each has ``keys()``, ``values()`` and ``origins()``
            as arrays. It returns for each layer which keys stay: bool [n_head_kv, n_keys] with ``n_keep`` of them in
            each row, all protected ones included.
        key_score: the parts of the score of mode ``fitted``; None: the defaults.
        reread: in mode ``fitted``, read the tokens since the last eviction once more before each eviction, and keep the
            keys that they look for. Reading takes 2.4 times as long then, and generating 1.4 times
            (SmolLM2 on a CPU). Refused for several texts in models with sliding windows or recurrent states.
        interval: tokens between evictions.
        window: the newest keys, never evicted; None: a quarter of the budget, at least 32, and 64 in modes other
            than ``fitted``. Counts towards the budget, as do the next two.
        n_sink: the first keys, never evicted.
        protect_prompt: never evict the prompt.
        reuse_evicted: if a prompt only adds to the text of an evicted cache, as the next turn of a chat does, go on
            from that cache. What is kept then depends on the calls before. False, or with ``protect_prompt``: read the
            prompt from its start.
        prefill: ``chunked`` reads a long prompt in chunks and evicts in between (bounded memory); ``full`` reads all of
            it first and evicts once, which needs memory for all of ``n_ctx``.
        scale_budget_by_attention: in models where only some layers have full attention, raise the kept fraction b of
            ``n_ctx`` to 1 - (1 - b) * (their number) / (number of layers).
        n_ctx: the largest number of positions; 0: what the model was trained for. Under a budget it allocates nothing,
            and may be any number. `ContextWarning` tells once of a text beyond what the model was trained for.
        n_batch: tokens given to llama.cpp at once.
        n_ubatch: tokens computed at once.
        n_seq_max: texts that `generate_batch` decodes at once; each has cells of its own.
        n_threads: CPU threads; None: one for each CPU that this process may use and that no other program needs, looked
            at again while it computes (on Linux). Their number changes the last bits of logits: give it to avoid that.
        n_gpu_layers: layers on the GPU; -1: all.
        split_mode: over several GPUs: 0 none, 1 by layers, 2 by rows.
        main_gpu: the GPU that is used without splitting.
        tensor_split: how much of the model each GPU gets; with `rpc_servers`, their devices come first, in the order
            given.
        rpc_servers: machines that lend their devices, each ``host:port`` of a ``pytriattn-rpc-server`` (see
            docs/rpc.md: for trusted networks alone). They are used besides the GPUs of this machine, and count as GPUs
            for the settings above.
        use_mmap: map the model file into memory, where the devices allow it.
        use_mlock: keep the model in memory.
        draft_model: guess the next tokens and compute them in one step: the path of a small GGUF model with the same
            vocabulary (or `LlamaModelDrafting`, with settings), `LlamaPromptLookupDecoding`, or a `LlamaDraftModel` of
            your own. The text is that without (but for rounding: several tokens at once are other matrix products), and
            so are the evictions. `kv_stats` counts the guesses.
        mmproj: the GGUF file of the encoder that was published beside a vision model; messages may then have images.
        progress: called with the fraction loaded; an exception that it raises ends the loading.
        lora: LoRA adapters to begin with; see `set_loras`.
        type_k: type of cached keys: f32, f16, bf16, q8_0, q4_0, q4_1, iq4_nl, q5_0, q5_1; kv3 (our own, in three bits,
            for heads that are multiples of 64); q3_K, q2_K (multiples of 256); or ggml's number of it.
        type_v: type of cached values.
        flash_attn: ``auto``, or True / False (also ``on`` / ``off``).
        rope_scaling_type: in place of the model's own: ``none``, ``linear``, ``yarn`` or ``longrope``. This and the
            next settings are followed exactly: scores rotate as the model then does. See `RopeSettings`.
        rope_freq_base: base of the frequencies; 0: the model's.
        rope_freq_scale: factor on positions; 0: the model's.
        yarn_ext_factor: mix of extrapolation and interpolation; negative: the model's.
        yarn_attn_factor: factor on rotated dimensions; negative: the model's.
        yarn_beta_fast: bound for fast bands; negative: the model's.
        yarn_beta_slow: bound for slow bands; negative: the model's.
        yarn_orig_ctx: positions before stretching; 0: the model's.
        chat_template: a Jinja template in place of the model's own.
        allow_untested: set a budget for an architecture that has not passed the tests of eviction.
        seed: of sampling and of mode ``random``; None: a new one for each call (mode ``random``: 0).
        verbose: show what llama.cpp logs.

    Raises:
        ModelLoadError: the model file is missing, damaged or of another kind; or an RPC server cannot be used.
        ServerLostError: an RPC server has gone away; also raised by every method that computes.
        UnsupportedModelError: a budget is set, and nothing can be evicted from this model's cache, or its architecture
            has not been tested.
        StatsError: the statistics are damaged or of another model.
        BudgetError: budget, window, sinks, mode and the other settings of eviction do not fit together.
        ContextError: a cache of this size or these types cannot be made.
        ModelMemoryError, CacheMemoryError: there is not enough memory for the weights, or for the cache. Both are a
            MemoryError too.
        BackendError: a backend's plug-in that is installed cannot be used; `pytriattn-doctor` tells more.
    """

    def __init__(
        self,
        model_path: str | os.PathLike[str],
        *,
        triattn_stats: str | os.PathLike[str] | TriAttentionStats | None = None,
        budget: int | None = None,
        mode: str | None = None,
        chooser: Chooser | None = None,
        key_score: KeyScoreOptions | None = None,
        reread: bool = False,
        interval: int = 128,
        window: int | None = None,
        n_sink: int = 4,
        protect_prompt: bool = False,
        reuse_evicted: bool = True,
        prefill: str = "chunked",
        scale_budget_by_attention: bool = False,
        n_ctx: int = 0,
        n_batch: int = 2048,
        n_ubatch: int = 512,
        n_seq_max: int = 1,
        n_threads: int | None = None,
        n_gpu_layers: int = -1,
        split_mode: int = 1,
        main_gpu: int = 0,
        tensor_split: Sequence[float] | None = None,
        rpc_servers: Sequence[str] | None = None,
        use_mmap: bool = True,
        use_mlock: bool = False,
        draft_model: DraftModel | None = None,
        mmproj: str | os.PathLike[str] | None = None,
        progress: Callable[[float], object] | None = None,
        lora: LoraScales | None = None,
        type_k: str | int = "f16",
        type_v: str | int = "f16",
        flash_attn: str | bool = "auto",
        rope_scaling_type: str | int | None = None,
        rope_freq_base: float = 0.0,
        rope_freq_scale: float = 0.0,
        yarn_ext_factor: float = -1.0,
        yarn_attn_factor: float = -1.0,
        yarn_beta_fast: float = -1.0,
        yarn_beta_slow: float = -1.0,
        yarn_orig_ctx: int = 0,
        chat_template: str | None = None,
        allow_untested: bool = False,
        seed: int | None = None,
        verbose: bool = False,
    ) -> None:
        """See the class."""
        if verbose:
            enable_verbose()
        eviction = None
        if budget is not None:
            eviction = EvictionSettings(
                budget,
                mode or DEFAULT_MODE,
                interval,
                window,  # type: ignore[arg-type]  # None is for the settings to replace
                n_sink,
                (seed or 0) & 0xFFFFFFFF,
                scale_budget_by_attention,
                chooser,
                key_score,
                reread,
            )
        options = CacheOptions(
            n_ctx=n_ctx,
            eviction=eviction,
            type_k=cache_type("type_k", type_k),
            type_v=cache_type("type_v", type_v),
            n_seq_max=n_seq_max,
            n_batch=n_batch,
            n_ubatch=n_ubatch,
            flash_attn=flash_attention(flash_attn),
            prefill=prefill,
            rope=RopeSettings(
                rope_scaling_type,
                rope_freq_base,
                rope_freq_scale,
                yarn_ext_factor,
                yarn_attn_factor,
                yarn_beta_fast,
                yarn_beta_slow,
                yarn_orig_ctx,
            ),
        )
        devices = DeviceOptions(
            n_gpu_layers, split_mode, main_gpu, tensor_split, rpc_servers, use_mmap=use_mmap, use_mlock=use_mlock
        )
        opened = open_model(
            model_path,
            options,
            devices,
            triattn_stats,
            n_threads=n_threads,
            allow_untested=allow_untested,
            may_fall_back=mode is None,
            progress=progress,
            draft_rule=drafting_rule(draft_model),
            mmproj=mmproj,
        )
        super().__init__(opened, protect_prompt=protect_prompt, reuse_evicted=reuse_evicted)
        self._seed = seed
        self._chat_template = chat_template or ""
        self._chat_templates: core.ChatTemplates | None = None
        if lora:
            self.set_loras(lora)

    @classmethod
    def from_pretrained(
        cls,
        repo_id: str,
        filename: str,
        *,
        triattn_stats: str | os.PathLike[str] | TriAttentionStats | None = None,
        mmproj: str | os.PathLike[str] | None = None,
        draft_model: DraftModel | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_dir: str | os.PathLike[str] | None = None,
        token: str | bool | None = None,
        endpoint: str | None = None,
        **settings: Any,
    ) -> Llama:
        """Load a model of the Hugging Face hub (extra ``hub``).

        Args:
            repo_id: ``owner/name``.
            filename: of the GGUF file; ``*`` stands for any text, but only one model may fit.
            triattn_stats: as in `Llama`; or, as the next two, the name of a file in the same repository.
            mmproj: as in `Llama`; such as ``mmproj*f16.gguf``.
            draft_model: as in `Llama`.
            revision: a branch, tag or commit.
            cache_dir: where downloads are kept; None: huggingface_hub's own cache.
            local_dir: put the files there instead.
            token: for private repositories.
            endpoint: of another hub.
            **settings: the other arguments of `Llama`.

        Raises:
            ModelLoadError: huggingface_hub is missing, or a file cannot be fetched; besides what `Llama` raises.
        """
        where: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir, "local_dir": local_dir}
        where |= {"token": token, "endpoint": endpoint}
        beside = {"triattn_stats": triattn_stats, "mmproj": mmproj, "draft_model": draft_model}
        model = download(repo_id, filename, **where)
        return cls(model, **{name: local_file(repo_id, file, **where) for name, file in beside.items()}, **settings)

    # -- text
    # ------------------------------------------------------------------------------------------------------------------

    def __call__(
        self,
        prompt: str | Sequence[int],
        max_tokens: int | None = 16,
        *,
        temperature: float = 0.8,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        repeat_penalty: float = 1.0,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        stream: bool = False,
        echo: bool = False,
        logprobs: int | None = None,
        question: int | str | None = AUTO,
        **sampling: Any,
    ) -> Completion | Iterator[CompletionChunk]:
        """Complete a prompt.

        Args:
            prompt: text, or token ids.
            max_tokens: at most this many; None or a negative number: until the end or ``n_ctx``.
            temperature: 0 always takes the likeliest token.
            top_k: draw from the k likeliest tokens; 0: all.
            top_p: draw from the likeliest tokens that have this probability together; 1: all.
            min_p: drop tokens less likely than this fraction of the likeliest one; 0: none.
            repeat_penalty: above 1: the last 64 tokens become less likely.
            stop: end before any of these strings.
            seed: the seed of this call; None: that of the object.
            stream: return an iterator of chunks.
            echo: put the prompt before the completion.
            logprobs: give the log-probabilities of the tokens and of this many best ones at each place.
            question: the tokens of the prompt that choose what is kept of the rest, if the prompt is longer than the
                budget. ``auto``: its last 64 tokens; a number: so many last tokens, at most 128; a text that stands in
                the prompt, of which the last 128 tokens count; None: no tokens. `kv_stats` tells which were taken.
            **sampling: other fields of `SamplingParams`.

        Returns:
            The completion in the form of OpenAI's text completions, or an iterator of chunks of that form.

        Raises:
            InvalidTokenError: the prompt is empty or has ids that are not in the vocabulary.
            ContextFullError: the prompt is longer than ``n_ctx``.
            BudgetError: the budget has no room for the prompt that ``protect_prompt`` protects, or for the question
                that was named.
            GrammarError: the grammar or the JSON schema cannot be used.
            ValueError: a sampling value makes no sense, or the question is not in the prompt.
            TypeError: a name is unknown.
        """
        params = SamplingParams.checked(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repeat_penalty=repeat_penalty,
            seed=seed if seed is not None else self._seed,
            **sampling,
        )
        return complete(
            self,
            prompt,
            max_tokens=max_tokens,
            params=params,
            stop=stop,
            stream=stream,
            echo=echo,
            logprobs=logprobs,
            question=question,
        )

    create_completion = __call__

    def create_chat_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        parallel_tool_calls: bool = False,
        response_format: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float = 0.2,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        stream: bool = False,
        logprobs: bool = False,
        top_logprobs: int | None = None,
        n: int = 1,
        enable_thinking: bool = True,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        question: int | str | None = AUTO,
        **sampling: Any,
    ) -> ChatCompletion | Iterator[ChatChunk]:
        """Answer a conversation, with the model's own chat template.

        Args:
            messages: dictionaries with ``role`` and ``content``, as OpenAI's interface takes them; tool results
                included. With ``mmproj`` a content may be a list with parts
                ``{"type": "image_url", "image_url": {"url": ...}}``: a ``data:`` URL, the bytes of an image file, or a
                `pathlib.Path`. No address is fetched.
            tools: functions that the model may call, in OpenAI's form.
            tool_choice: ``auto``, ``none``, ``required``, or ``{"type": "function", "function": {"name": ...}}``.
            parallel_tool_calls: allow several calls in one answer.
            response_format: ``{"type": "json_object"}``, or ``{"type": "json_schema", "json_schema": {"schema":
                {...}}}``: a grammar holds the answer to all of it.
            max_tokens: at most this many; None or a negative number: until the end or ``n_ctx``.
            temperature: 0 always takes the likeliest token.
            stop: end before any of these strings.
            seed: the seed of this call; None: that of the object.
            stream: return an iterator of chunks.
            logprobs: give the log-probabilities of the answer's tokens.
            top_logprobs: with ``logprobs``, also those of this many best tokens at each place.
            n: how many answers; the prompt is read once.
            enable_thinking: let a model think before its answer, if it can.
            chat_template_kwargs: more values for the template.
            question: as in `__call__`; ``auto``: the last user message, of one of more than 128 tokens its last 64.
            **sampling: other fields of `SamplingParams`.

        Returns:
            The answer in the form of OpenAI's chat completions, or an iterator of chunks of that form.

        Raises:
            ChatError: the template cannot take these messages or tools.
            ImageError: an image cannot be read, or there is no ``mmproj``.
            GrammarError: the schema or the grammar cannot be used, or a part of the schema has no equivalent in one.
            InvalidTokenError, ContextFullError, BudgetError, ValueError: as `__call__`.
        """
        params = SamplingParams.checked(
            temperature=temperature, seed=seed if seed is not None else self._seed, **sampling
        )
        request = ChatRequest(
            messages=messages,
            tools=tools,
            tool_choice=tool_choice,
            parallel_tool_calls=parallel_tool_calls,
            response_format=response_format,
            params=params,
            max_tokens=max_tokens,
            stop=stop,
            n_top_logprobs=(top_logprobs or 0) if logprobs or top_logprobs is not None else None,
            n=n,
            enable_thinking=enable_thinking,
            template_values=chat_template_kwargs or {},
            question=question,
        )
        return chat(self, self.chat_templates, request, stream=stream)

    @property
    def chat_templates(self) -> core.ChatTemplates:
        """The model's chat template; not a part of the stable interface."""
        if self._chat_templates is None:
            self._chat_templates = core.ChatTemplates(self._open_model(), self._chat_template)
        return self._chat_templates

    def generate_batch(
        self,
        prompts: Sequence[str | Sequence[int]],
        max_tokens: int | None = 128,
        *,
        stop: str | Sequence[str] | None = None,
        seed: int | None = None,
        question: int | str | None = AUTO,
        **sampling: Any,
    ) -> list[Completion]:
        """Complete many prompts, up to ``n_seq_max`` of them at once, each with cells and a budget of its own.

        When a text ends, the next prompt takes its place. What the cache held before is forgotten.

        Args:
            prompts: texts, or token ids.
            max_tokens: at most this many for each; None or a negative number: until the end or ``n_ctx``.
            stop: end before any of these strings.
            seed: the seed of the first prompt, one more for each further prompt; None: that of the object.
            question: as in `__call__`, for every prompt.
            **sampling: fields of `SamplingParams`.

        Returns:
            Completions in the order of the prompts.

        Raises:
            InvalidTokenError, ContextFullError, BudgetError, ValueError: as `__call__`, before anything is read.
        """
        params = SamplingParams.checked(seed=seed if seed is not None else self._seed, **sampling)
        return complete_batch(self, prompts, max_tokens=max_tokens, params=params, stop=stop, question=question)

    # -- tokens
    # ----------------------------------------------------------------------------------------------------------------

    def generate(
        self,
        tokens: Sequence[int] | npt.NDArray[np.integer[Any]] | None,
        max_tokens: int | None = None,
        question: int | str | None = AUTO,
        **sampling: Any,
    ) -> Generation:
        """Read a prompt, then return an iterator of generated token ids.

        What the prompt has in common with the text in the cache is not read again. The prompt has been read when this
        returns. The iterator ends before an end-of-text token (unless ``ignore_eos=True``), after `max_tokens`, or at
        ``n_ctx``.

        Args:
            tokens: ids of the prompt, [n_tokens]; None: go on from what has been read (see `eval`).
            max_tokens: at most this many; None or a negative number: until the end or ``n_ctx``.
            question: as in `__call__`.
            **sampling: fields of `SamplingParams`.

        Raises:
            InvalidTokenError, ContextFullError, BudgetError, ValueError: as `__call__`.
            ContextError: there are no logits to go on from, since a state has been loaded.
            BusyError: (from the iterator) a later call has taken the context over.
            ClosedError: the object has been closed.
        """
        sampling.setdefault("seed", self._seed)
        params = SamplingParams.checked(**sampling)
        prompt = self.check_tokens(text_of(self.tokens) if tokens is None else tokens)
        sampler, limit = params.make_sampler(self, prompt), token_limit(max_tokens)
        if tokens is not None:
            self.read_prompt(prompt, question=find_question(self, prompt, question))
        elif not self.has_logits:
            raise ContextError("there are no logits to go on from, since a state was loaded; eval a token first")
        else:
            self.forget_cancellation()
        return Generation(self, sampler, limit, ignore_eos=params.ignore_eos)
