"""Run llama.cpp's own server tests against pytriattn-server: ``make test-server``.

They come with the pinned source and are run as they are, with a local model (see local_model.py), without and with a
budget. What is expected not to pass is named in expected.json with the reason; anything else that fails, or passes
against expectation, is an error.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
UPSTREAM = ROOT / "vendor" / "llama.cpp" / "upstream"
SUITE = Path("tools", "server", "tests")
FILES = (
    *("basic", "chat_completion", "completion", "compat_oai_responses", "compat_anthropic", "security", "metrics"),
    *("tokenize", "template", "ignore_eos", "slot_save", "embedding", "ctx_shift", "speculative"),
    "kv_keep_only_active",
)
BUDGET = {
    "LLAMA_ARG_TRIATTENTION_BUDGET": "128",
    "LLAMA_ARG_TRIATTENTION_WINDOW": "32",
    "LLAMA_ARG_TRIATTENTION_INTERVAL": "32",
}


def run_suite(files: list[str], model: Path, budget: bool, report: Path) -> dict[str, str]:
    """Return what came of each test: passed, failed or skipped."""
    with tempfile.TemporaryDirectory(prefix="server-suite-") as folder:
        copy = Path(folder) / SUITE
        shutil.copytree(UPSTREAM / SUITE, copy)
        for beside in ("models", "tools/mtmd"):  # where tests look for templates and images
            (Path(folder) / beside).symlink_to(UPSTREAM / beside)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(HERE), str(copy)]),
            "LLAMA_SERVER_BIN_PATH": str(Path(sysconfig.get_path("scripts")) / "pytriattn-server"),
            "SERVER_SUITE_MODEL": str(model),
            "GOMP_SPINCOUNT": "0",
            **(BUDGET if budget else {}),
        }
        command = [sys.executable, "-m", "pytest", "-p", "local_model", "-q", "--tb=short"]
        command += ["-rA", "-p", "no:cacheprovider", *(f"unit/test_{name}.py" for name in files)]
        with report.open("w", encoding="utf-8") as out:
            subprocess.run(command, cwd=copy, env=environment, stdout=out, stderr=subprocess.STDOUT, check=False)
    results: dict[str, str] = {}
    for line in report.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := re.match(r"(PASSED|FAILED|ERROR) (?:unit/)(\S+::.+?)(?: - .*)?$", line):
            results[found[2]] = found[1].lower()
    return results


def main() -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--files", nargs="*", default=list(FILES))
    parser.add_argument("--kinds", nargs="+", choices=["without", "with"], default=["without", "with"])
    parser.add_argument("--log", type=Path, default=ROOT / "build" / "server-suite")
    arguments = parser.parse_args()
    arguments.log.mkdir(parents=True, exist_ok=True)
    expected = json.loads((HERE / "expected.json").read_text(encoding="utf-8"))
    wrong = 0
    for kind in arguments.kinds:
        report = arguments.log / f"{kind}-budget.txt"
        results = run_suite(arguments.files, arguments.model.resolve(), kind == "with", report)
        known = {**expected["both"], **expected[kind]}
        passed = sum(result == "passed" for result in results.values())
        print(f"{kind} a budget: {passed} of {len(results)} passed ({report})")
        for name, result in sorted(results.items()):
            if (result == "passed") == (name in known):
                wrong += 1
                print(f"  {name}: {result}, expected {'not to pass: ' + known[name] if name in known else 'to pass'}")
        if not results:
            wrong += 1
            print("  no test was run")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
