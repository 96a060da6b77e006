"""The patches of llama.cpp: what they may change, that they fit the pinned tree, and what is said if they do not."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys
from types import ModuleType

import pytest

from support.paths import ROOT

VENDOR = ROOT / "vendor/llama.cpp"
UPSTREAM = VENDOR / "upstream"

PATCH = """Adds a line.

--- a/src/one.c
+++ b/src/one.c
@@ -1,2 +1,3 @@
 first
+between
 second
@@ -4,2 +5,2 @@
 fourth
-fifth
+5th
--- a/two.c
+++ b/two.c
@@ -1 +1 @@
-alone
+not alone
"""


@pytest.fixture
def patching() -> ModuleType:
    spec = importlib.util.spec_from_file_location("patching", VENDOR / "patching.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    """Make a tree and, beside it, a patch for it."""
    (tmp_path / "tree/src").mkdir(parents=True)
    (tmp_path / "tree/src/one.c").write_text("first\nsecond\nthird\nfourth\nfifth\n")
    (tmp_path / "tree/two.c").write_bytes(b"alone\n")
    (tmp_path / "0001-lines.patch").write_text(PATCH)
    return tmp_path / "tree"


def test_a_patch_is_applied_once(patching: ModuleType, tree: pathlib.Path) -> None:
    patch = tree.parent / "0001-lines.patch"
    assert patching.list_patches(tree.parent) == [patch]
    assert not patching.is_applied(patch, tree)
    patching.apply_patch(patch, tree)
    assert (tree / "src/one.c").read_text() == "first\nbetween\nsecond\nthird\nfourth\n5th\n"
    assert (tree / "two.c").read_bytes() == b"not alone\n"
    assert patching.is_applied(patch, tree)
    with pytest.raises(
        patching.PatchError, match=r"0001-lines.patch does not fit src/one.c, line 1: .* patched already"
    ):
        patching.apply_patch(patch, tree)


def test_nothing_is_written_unless_every_hunk_fits(patching: ModuleType, tree: pathlib.Path) -> None:
    (tree / "two.c").write_text("another\n")
    before = (tree / "src/one.c").read_bytes()
    with pytest.raises(patching.PatchError, match=r"does not fit two.c, line 1: it expects 'alone'"):
        patching.apply_patch(tree.parent / "0001-lines.patch", tree)
    assert (tree / "src/one.c").read_bytes() == before
    (tree / "two.c").unlink()
    with pytest.raises(patching.PatchError, match="changes two.c, which is missing in"):
        patching.apply_patch(tree.parent / "0001-lines.patch", tree)


@pytest.mark.parametrize(
    ("text", "message"), [("only words\n", "has no hunks"), (PATCH + "and words\n", "is not a line of a unified diff")]
)
def test_a_file_that_is_no_patch(patching: ModuleType, tmp_path: pathlib.Path, text: str, message: str) -> None:
    (tmp_path / "0001-x.patch").write_text(text)
    with pytest.raises(patching.PatchError, match=message):
        patching.read_hunks(tmp_path / "0001-x.patch")


def test_the_program_patches_a_tree(tree: pathlib.Path) -> None:
    """It has all patches or says why not."""
    done = subprocess.run([sys.executable, VENDOR / "patching.py", tree], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"patching.py: 0001-\S+ changes \S+, which is missing in \S+\n", done.stderr)


def test_the_pinned_tree_is_patched_and_was_another_before(patching: ModuleType, tmp_path: pathlib.Path) -> None:
    """Taking the patches back and applying them again gives the same bytes."""
    if not UPSTREAM.is_dir():
        pytest.skip("built from another tree")
    changed: set[str] = set()
    for patch in reversed(patching.list_patches()):
        assert patching.is_applied(patch, UPSTREAM)
        for hunk in patching.read_hunks(patch):
            copy = tmp_path / hunk.path
            if hunk.path not in changed:
                changed.add(hunk.path)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(UPSTREAM / hunk.path, copy)
            lines = copy.read_text().split("\n")
            # later patches and earlier hunks of the file have been taken back, so that the line is the old one
            at = hunk.line - 1
            assert tuple(lines[at : at + len(hunk.new)]) == hunk.new
            lines[at : at + len(hunk.new)] = hunk.old
            copy.write_text("\n".join(lines))
        assert not patching.is_applied(patch, tmp_path)
    for path in changed:
        assert (tmp_path / path).read_bytes() != (UPSTREAM / path).read_bytes()
    for patch in patching.list_patches():
        patching.apply_patch(patch, tmp_path)
    for path in changed:
        assert (tmp_path / path).read_bytes() == (UPSTREAM / path).read_bytes()


def test_every_hunk_has_its_reason_and_little_around_it(patching: ModuleType) -> None:
    for patch in patching.list_patches():
        header = patch.read_text().split("--- a/", 1)[0]
        by_file: dict[str, int] = {}
        for hunk in patching.read_hunks(patch):
            by_file[hunk.path] = by_file.get(hunk.path, 0) + 1
            kept = [line for line in hunk.old if line in hunk.new]
            assert len(kept) <= 3, f"{patch.name}: {hunk.path}:{hunk.line} has more of llama.cpp than it takes"
        for path, n_hunks in by_file.items():
            reasons = header.split(f"\n{path}\n", 1)[1].split("\n\n")[0]
            reasons = re.split(r"\n(?=\S)", reasons)[0]  # up to the next file
            numbered = re.findall(r"^    (\d+)\. \S", reasons, re.MULTILINE)
            assert numbered == [str(i) for i in range(1, n_hunks + 1)] or (n_hunks == 1 and not numbered), path


def test_a_tree_of_ones_own_without_the_patches_is_refused(tmp_path: pathlib.Path) -> None:
    if not UPSTREAM.is_dir():
        pytest.skip("built from another tree")
    tree = tmp_path / "llama.cpp"
    patched = {path for path in re.findall(r"\+\+\+ b/(\S+)", "".join(p.read_text() for p in VENDOR.glob("patches/*")))}
    for path in {"CMakeLists.txt", "src/llama-kv-cache.h", "ggml/CMakeLists.txt", *patched}:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(UPSTREAM / path, tree / path)

    def fetch() -> subprocess.CompletedProcess[str]:
        env = {"PYTRIATTN_LLAMA_CPP_DIR": str(tree)}
        return subprocess.run(
            [sys.executable, VENDOR / "fetch.py"], env=env, capture_output=True, text=True, check=False
        )

    assert fetch().stdout.strip() == str(tree)
    header = tree / "ggml/include/ggml.h"
    header.write_text(header.read_text().replace("GGML_TYPE_KV3", "GGML_TYPE_OTHER"))
    refused = fetch()
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"fetch.py: PYTRIATTN_LLAMA_CPP_DIR={tree} lacks 0001-kv3-type.patch")
    assert f"patching.py {tree}`" in refused.stderr
