"""A model for EleutherAI's lm-evaluation-harness, so that any of its tasks can be run under a budget.

    python -m pytriattn.integrations.lm_eval run --model pytriattn --model_args pretrained=model.gguf,budget=2048
    --tasks hellaswag

is lm_eval's own command line with the model ``pytriattn`` in addition. In Python, importing this module registers it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from tqdm import tqdm

from pytriattn.errors import ChatError
from pytriattn.generation.continuations import ContinuationScorer
from pytriattn.integrations import required
from pytriattn.llama import Llama

with required("lm_eval", "lm-eval"):
    from lm_eval import utils
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.models.utils import maybe_truncate, normalize_gen_kwargs, postprocess_generated_text

__all__ = ["PytriattnLM", "main"]

_NOT_SAMPLING = ("until", "max_gen_toks", "do_sample")


@register_model("pytriattn")
class PytriattnLM(TemplateLM):  # type: ignore[misc]
    """`Llama` as lm_eval calls it.

    Log-likelihoods are those of `Llama.logprobs`, bit for bit: one pass, evicting exactly where decoding would.

    Args:
        pretrained: a GGUF file; or, with `filename`, a repository of the Hugging Face hub.
        filename: which file of that repository.
        batch_size: texts that are generated at once (``n_seq_max``). Log-likelihoods are computed one after the other.
        max_length: at most so many tokens in a text; None: ``n_ctx``.
        max_gen_toks: tokens to generate where a task does not say.
        think_end_token: what a model's thoughts end with; they are cut off.
        enable_thinking: let a model think before its answer, if it can.
        max_batch_size: lm_eval gives it; not used.
        device: lm_eval gives it; not used: ``n_gpu_layers`` says what runs where.
        **settings: the other arguments of `Llama`: ``budget``, ``n_ctx``, ``triattn_stats``, ``mode``, ...
    """

    def __init__(
        self,
        pretrained: str,
        *,
        filename: str | None = None,
        batch_size: int | str = 1,
        max_length: int | None = None,
        max_gen_toks: int = 256,
        think_end_token: str | None = None,
        enable_thinking: bool = True,
        max_batch_size: int | None = None,
        device: str | None = None,
        **settings: Any,
    ) -> None:
        """See the class. Raises what `Llama` raises."""
        super().__init__()
        self._batch = 1 if str(batch_size).startswith("auto") else int(batch_size)
        settings.setdefault("n_seq_max", self._batch)
        self.llm = (
            Llama(pretrained, **settings)
            if filename is None
            else Llama.from_pretrained(pretrained, filename, **settings)
        )
        self.max_length: int = min(max_length or self.llm.n_ctx(), self.llm.n_ctx())
        self.max_gen_toks = max_gen_toks
        self.batch_size = self._batch
        self._think_end_token = think_end_token
        self._enable_thinking = enable_thinking
        self._name = os.path.basename(pretrained) if filename is None else f"{pretrained}/{filename}"
        self._scorer = ContinuationScorer(self.llm)

    # -- tokens
    # ----------------------------------------------------------------------------------------------------------------

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.llm.token_eos()

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no context: the token that begins a text, or else the one that ends it."""
        bos = self.llm.token_bos()
        return bos if bos >= 0 else self.eot_token_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Return token ids; control tokens in the text count as such.

        Args:
            string: the text.
            add_special_tokens: put the token that begins a text in front; None: as the model wants it. Never at the
                end: a continuation follows.
        """
        tokens = self.llm.tokenize(string, add_bos=False, special=True)
        begins = (
            self.llm.tokenize("")[:1] == [self.llm.token_bos()] if add_special_tokens is None else add_special_tokens
        )
        if begins and tokens[:1] != [self.prefix_token_id]:
            tokens.insert(0, self.prefix_token_id)
        return tokens

    def tok_decode(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids."""
        return self.llm.detokenize(tokens)

    # -- log-likelihoods
    # -------------------------------------------------------------------------------------------------------

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        # in the order of their tokens, neighbours share the longest beginnings
        order = sorted(range(len(requests)), key=lambda i: requests[i][1] + requests[i][2])
        found: dict[int, tuple[float, bool]] = {}
        for i in tqdm(order, desc="Running loglikelihood requests", disable=disable_tqdm):
            texts, context, continuation = requests[i]
            found[i] = self._loglikelihood(context, continuation)
            if texts is not None:
                self.cache_hook.add_partial("loglikelihood", texts, found[i])
        return [found[i] for i in range(len(requests))]

    def _loglikelihood(self, context: list[int], continuation: list[int]) -> tuple[float, bool]:
        if not continuation:
            return 0.0, True
        if len(continuation) >= self.max_length:
            raise ValueError(
                f"a continuation of {len(continuation)} tokens leaves no room for its context in {self.max_length}; "
                f"raise n_ctx "
                "(under a budget it allocates nothing)"
            )
        score = self._scorer.score(context[-(self.max_length - len(continuation)) :], continuation)
        return score.logprob, score.is_greedy

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of whole texts, in windows of `max_length` if they are longer."""
        found = []
        for (text,) in tqdm(
            [request.args for request in requests], desc="Running rolling requests", disable=disable_tqdm
        ):
            windows = utils.get_rolling_token_windows(
                token_list=self.tok_encode(text, add_special_tokens=False),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length - 1,  # and the last token that is predicted
                context_len=1,
            )
            total = sum(self._loglikelihood(*utils.make_disjoint_window(window))[0] for window in windows)
            found.append(total)
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return found

    # -- generating
    # ------------------------------------------------------------------------------------------------------------

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """Return what the model says after each context, up to a string of ``until``.

        Raises:
            TypeError: a task asks for a sampling parameter that `Llama` does not have.
        """
        by_kwargs = sorted(range(len(requests)), key=lambda i: (repr(requests[i].args[1]), requests[i].args[0]))
        found: dict[int, str] = {}
        with tqdm(total=len(requests), desc="Running generate_until requests", disable=disable_tqdm) as progress:
            for _, members in groupby(by_kwargs, key=lambda i: repr(requests[i].args[1])):
                same = list(members)
                for start in range(0, len(same), self._batch):
                    batch = same[start : start + self._batch]
                    texts = self._generate([requests[i].args[0] for i in batch], requests[batch[0]].args[1])
                    for i, text in zip(batch, texts, strict=True):
                        found[i] = text
                        self.cache_hook.add_partial("generate_until", requests[i].args, text)
                    progress.update(len(batch))
        return [found[i] for i in range(len(requests))]

    def _generate(self, contexts: list[str], gen_kwargs: dict[str, Any]) -> list[str]:
        wanted: dict[str, Any] = dict(normalize_gen_kwargs(gen_kwargs, self.max_gen_toks))
        stop = [text for text in wanted["until"] if text]
        sampling = {name: value for name, value in wanted.items() if name not in _NOT_SAMPLING}
        sampling.setdefault("temperature", 0.0)
        limit = wanted["max_gen_toks"]
        prompts = [
            maybe_truncate(self.tok_encode(text), limit, self.max_length, shrink_gen_toks=True)[0] for text in contexts
        ]
        # what a model thinks may contain what its answer has to end before
        stops = None if self._think_end_token else stop
        if self._batch > 1:
            answers = self.llm.generate_batch(prompts, limit, stop=stops, **sampling)
        else:
            complete: Any = self.llm.create_completion
            answers = [complete(prompt, limit, stop=stops, **sampling) for prompt in prompts]
        return [
            postprocess_generated_text(answer["choices"][0]["text"], stop, self._think_end_token) for answer in answers
        ]

    # -- chats
    # -----------------------------------------------------------------------------------------------------------------

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return the prompt that the model's own template makes of messages.

        Args:
            chat_history: dictionaries with ``role`` and ``content``.
            add_generation_prompt: begin the model's answer; False: the last message is the beginning of its answer.

        Raises:
            ChatError: the template cannot take these messages.
        """
        templated = self.llm.chat_templates.apply(
            messages=json.dumps(chat_history),
            tools="",
            tool_choice="none",
            json_schema="",
            grammar="",
            parallel_tool_calls=False,
            enable_thinking=self._enable_thinking,
            reasoning_format="auto",
            add_generation_prompt=add_generation_prompt,
            template_values={},
        )
        prompt: str = templated.prompt.decode("utf-8")
        if add_generation_prompt:
            return prompt
        last = chat_history[-1]["content"].strip()
        end = prompt.rfind(last)
        if end < 0:
            raise ChatError(
                "the chat template does not write the beginning of an answer as it is; run without a gen_prefix"
            )
        return prompt[: end + len(last)]

    def chat_template(self, chat_template: bool | str = False) -> str:
        """Return the model's template; it has one only, so a name is refused.

        Raises:
            ValueError: a template is asked for by name.
        """
        if isinstance(chat_template, str):
            raise ValueError(
                f"the chat template {chat_template!r} cannot be chosen: load the model with chat_template=..."
            )
        return self.llm.metadata.get("tokenizer.chat_template", "")

    @property
    def tokenizer_name(self) -> str:
        """What tells this model's prompts from others' in lm_eval's cache."""
        return self._name.replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """Return what lm_eval writes beside its results."""
        return {
            "model_name": self.llm.identity.name,
            "model_sha256": self.llm.identity.sha256,
            "budget": self.llm.budget,
            "n_ctx": self.llm.n_ctx(),
        }


def main() -> None:
    """Run lm_eval's command line."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
