"""Ray Data: the same questions to thousands of documents, each read within a budget.

    pip install pytriattn "ray[data]"
    python examples/ray_data.py model.gguf texts/ --question "Who is it about?" --question "When was it?" -o answers/

Each worker has a model of its own. A question stands at the end of its document and chooses what is kept of it. If a
machine is lost, Ray gives its documents to the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import ray

from pytriattn import Llama


class Asker:
    """A worker: asks all questions about each document of a batch."""

    def __init__(self, model: str, questions: list[str], settings: dict[str, Any], max_tokens: int) -> None:
        """Load the model; `settings` are those of `Llama`."""
        self._llm = Llama(model, **settings)
        self._questions = questions
        self._max_tokens = max_tokens

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with a column ``answers`` [n_documents, n_questions]."""
        answers = [[self._answer(text, question) for question in self._questions] for text in batch["text"]]
        return {**batch, "answers": np.array(answers, dtype=object).reshape(len(answers), len(self._questions))}

    def _answer(self, text: str, question: str) -> str:
        messages = [{"role": "user", "content": f"{text}\n\n{question}"}]
        answer: Any = self._llm.create_chat_completion(messages, max_tokens=self._max_tokens, temperature=0.0)
        return str(answer["choices"][0]["message"]["content"])


def ask(
    documents: ray.data.Dataset,
    model: str,
    questions: list[str],
    *,
    max_tokens: int = 64,
    n_workers: int | tuple[int, int] = 1,
    **settings: Any,
) -> ray.data.Dataset:
    """Return the documents (a column ``text``) with the answers; `settings` are those of `Llama`.

    `n_workers` is the number of models, or the least and the most of them.
    """
    return documents.map_batches(
        Asker,
        fn_constructor_args=(str(Path(model).resolve()), questions, settings, max_tokens),
        batch_size=1,
        concurrency=n_workers,
        num_cpus=settings.get("n_threads") or 1,
    )


def main() -> None:
    """Ask, and write the answers as JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", help="texts, one a file")
    parser.add_argument("--question", action="append", required=True)
    parser.add_argument("--budget", type=int, default=4096)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    parser.add_argument("-o", "--output", default="answers")
    arguments = parser.parse_args()
    documents = ray.data.read_binary_files(arguments.folder, include_paths=True).map(
        lambda row: {"path": row["path"], "text": row["bytes"].decode("utf-8", errors="replace")}
    )
    answered = ask(
        documents,
        arguments.model,
        arguments.question,
        n_workers=arguments.workers,
        budget=arguments.budget,
        n_threads=arguments.threads,
    )
    answered.write_json(arguments.output)


if __name__ == "__main__":
    main()
