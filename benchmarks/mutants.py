"""Mutation testing: does a test fail if a line of the package is bent or taken out?

    python benchmarks/mutants.py --count 200 --seed 0 --write mutants.json
    python benchmarks/mutants.py --again mutants.json            # its survivors, after new tests
    python benchmarks/mutants.py --count 40 fastglm/_kernels     # some files or folders

A mutant is a copy of the package with one change: another operator, a number plus one, a condition
that is negated or never met, an argument left out, or a statement left out. Lines are drawn evenly
from the files, and one change of each line. The tests that are nearest to the file (`NEAREST`) run
against the mutant until the first failure. A mutant survives if they all pass. The changes of the
survivors are printed at the end: each asks for a test, or for a reason why it changes no result.

Kernels are mutated in pure Python (``NUMBA_DISABLE_JIT=1``), since the cache of the compiler does
not notice changes of another file. Checkouts are not touched: everything happens in a temporary
copy. A mutant that runs three times as long as the package, or takes 8 GB, counts as killed.

Libraries for the purpose were considered. mutmut runs the tests in forks of a process that has run
them before, which OpenMP forbids. cosmic-ray knows one command of tests, no samples and no
statements that are left out.
"""

import argparse
import ast
import copy
import difflib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ("_engine", "_products", "recordings", "_inputs.py", "inference.py")
# Tests of a file, or of the files in a folder, quick ones first. The longest name that fits counts.
NEAREST = {
    "_engine": "guards glm conditioning weights regularizer families record",
    "_engine/proximal.py": "regularizer guards record weights",
    "_engine/quadratic.py": "traces families guards conditioning weights record",
    "_engine/observed.py": "weights guards shards traces record",
    "_engine/result.py": "guards glm html monitor",
    "_products": "products guards features glm weights covariates record",
    "_products/shards.py": "shards products guards",
    "_products/weighted_gram.py": "kernels inference guards",
    "_inputs.py": "errors glm weights guards sklearn covariates html times",
    "inference.py": "inference guards connectivity weights",
    "recordings": "io times guards coupling errors simulation cli",
    "recordings/nwb.py": "nwb guards data_page",
    "recordings/units.py": "coupling times guards nwb io",
    "_kernels": "kernels products simulation",
}
GIGABYTES = 8
# Arguments that check what holds anyway, or that only save time.
GUARDS = ("strict", "check_finite", "overwrite_a", "overwrite_b", "stacklevel", "optimize")
_PAIRS = (
    (ast.Add, ast.Sub), (ast.Mult, ast.Div), (ast.BitAnd, ast.BitOr), (ast.LShift, ast.RShift),
    (ast.And, ast.Or), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn),
    (ast.Break, ast.Continue),
)  # fmt: skip
SWAPS = {a: [b] for a, b in _PAIRS} | {b: [a] for a, b in _PAIRS}
SWAPS |= {ast.FloorDiv: [ast.Mult], ast.Mod: [ast.FloorDiv], ast.Pow: [ast.Mult]}
SWAPS |= {ast.Lt: [ast.LtE, ast.Gt], ast.LtE: [ast.Lt, ast.Gt]}
SWAPS |= {ast.Gt: [ast.GtE, ast.Lt], ast.GtE: [ast.Gt, ast.Lt]}


# --- changes ---


class Change(NamedTuple):
    """A part of a source, and the text to put in its place."""

    line: int
    begin: int  # bytes
    old: str
    new: str

    def apply(self, source):
        """The changed source."""
        end = self.begin + len(self.old.encode())
        raw = source.encode()
        return (raw[: self.begin] + self.new.encode() + raw[end:]).decode()


def changes_of(source):
    """Every change of a source."""
    raw, begins = source.encode(), [0]
    for line in raw.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    found = []
    for node, new in _walk(ast.parse(source), set()):
        begin = begins[node.lineno - 1] + node.col_offset
        end = begins[node.end_lineno - 1] + node.end_col_offset
        found.append(Change(node.lineno, begin, raw[begin:end].decode(), new))
    return found


def _walk(node, known):
    """Nodes and texts to put in their place; ``known`` are names that have a value already."""
    if isinstance(node, ast.FunctionDef | ast.Lambda):
        known = known | {a.arg for a in ast.walk(node.args) if isinstance(a, ast.arg)}
    yield from _changes(node, known)
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params", "format_spec"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _is_quiet(child):
                continue
            yield from _walk(child, known)
            if isinstance(child, ast.stmt):
                known = known | _stored(child)


def _stored(node):
    """Names that get a value in a node, functions inside it left out."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
        return set()
    if isinstance(node, ast.Name):
        return {node.id} if isinstance(node.ctx, ast.Store) else set()
    return set().union(*(_stored(child) for child in ast.iter_child_nodes(node)))


def _is_quiet(node):
    """Whether nothing in a node is worth a change: texts, types, guards."""
    if isinstance(node, ast.keyword):
        return node.arg in GUARDS
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.JoinedStr)


def _changes(node, known):
    def with_(**fields):
        other = copy.copy(node)
        for name, value in fields.items():
            setattr(other, name, value)
        return f"({ast.unparse(other)})"

    match node:
        case ast.Compare():
            for k, op in enumerate(node.ops):
                for new in SWAPS[type(op)]:
                    yield node, with_(ops=[*node.ops[:k], new(), *node.ops[k + 1 :]])
        case ast.BinOp() | ast.BoolOp() if type(node.op) in SWAPS and not _is_text(node):
            yield node, with_(op=SWAPS[type(node.op)][0]())
        case ast.UnaryOp():
            yield node, f"({ast.unparse(node.operand)})"
        case ast.Constant(value=bool()):
            yield node, str(not node.value)
        case ast.Constant(value=int() | float()):
            yield node, repr(node.value + 1)
        case ast.Call():
            for k, keyword in enumerate(node.keywords):
                if keyword.arg is not None and keyword.arg not in GUARDS:
                    rest = [*node.keywords[:k], *node.keywords[k + 1 :]]
                    yield node, with_(keywords=rest)
        case ast.If() | ast.IfExp() | ast.While():
            yield node.test, f"(not ({ast.unparse(node.test)}))"
            if isinstance(node, ast.If):
                yield node.test, "False"
        case ast.For() | ast.Raise() | ast.Delete():
            yield node, "pass"
        case ast.Expr() if not isinstance(node.value, ast.Constant | ast.Yield | ast.YieldFrom):
            yield node, "pass"
        case ast.Assign() if all(_is_known(target, known) for target in node.targets):
            yield node, "pass"
        case ast.AugAssign():
            yield node, "pass"
            if type(node.op) in SWAPS:
                yield node, with_(op=SWAPS[type(node.op)][0]())[1:-1]
        case ast.Break() | ast.Continue():
            yield node, ast.unparse(SWAPS[type(node)][0]())


def _is_text(node):
    """Whether a sum joins texts."""
    parts = (node.left, node.right) if isinstance(node, ast.BinOp) else ()
    return any(isinstance(p, ast.JoinedStr) for p in parts) or any(
        isinstance(p, ast.Constant) and isinstance(p.value, str) for p in parts
    )


def _is_known(target, known):
    """Whether a target has a value without this assignment."""
    if isinstance(target, ast.Tuple):
        return all(_is_known(part, known) for part in target.elts)
    return not isinstance(target, ast.Name) or target.id in known


def find(targets):
    """The changes of some files or folders of the package: lists by file and line."""
    found = {}
    for target in targets:
        path = ROOT / "fastglm" / target.removeprefix("fastglm/")
        for file in [path] if path.suffix else sorted(path.rglob("*.py")):
            name = file.relative_to(ROOT).as_posix()
            for change in changes_of(file.read_text()):
                found.setdefault((name, change.line), []).append(change)
    return found


def draw(found, count, seed):
    """Some mutants, each of another line, as dicts with a file and the fields of a change."""
    rng = random.Random(seed)
    places = rng.sample(sorted(found), min(count, len(found)))
    return [{"file": place[0], **rng.choice(found[place])._asdict()} for place in places]


def find_again(found, mutant):
    """A mutant with its change where it is now."""
    same = [
        change
        for (file, _), changes in found.items()
        for change in changes
        if (file, change.old, change.new) == (mutant["file"], mutant["old"], mutant["new"])
    ]
    if not same:
        sys.exit(f"{mutant['file']} no longer has {mutant['old']!r}")
    return mutant | min(same, key=lambda c: abs(c.line - mutant["line"]))._asdict()


def source_and_mutant(mutant):
    """The source of a file, and with the change."""
    source = (ROOT / mutant["file"]).read_text()
    fields = {name: mutant[name] for name in Change._fields}
    return source, Change(**fields).apply(source)


def difference(mutant):
    """The lines that a mutant removes and adds."""
    lines = [text.splitlines() for text in source_and_mutant(mutant)]
    lines = list(difflib.unified_diff(*lines, lineterm="", n=0))
    return "\n".join(line for line in lines[2:] if not line.startswith("@@"))


# --- runs ---


class Stage:
    """A temporary copy of the package and its tests, and the times of tests without a change."""

    def __init__(self, folder):
        self.folder, self.times = Path(folder), {}
        for name in ("fastglm", "tests", "benchmarks"):
            shutil.copytree(ROOT / name, self.folder / name)
        shutil.copy(ROOT / "pyproject.toml", self.folder)

    def tests(self, name):
        """Files of the tests that are nearest to a file, those that exist."""
        name = name.removeprefix("fastglm/")
        nearest = NEAREST[max((k for k in NEAREST if name.startswith(k)), key=len)]
        files = [f"tests/test_{test}.py" for test in nearest.split()]
        return tuple(file for file in files if (self.folder / file).exists())

    def run(self, tests, pure, limit=None):
        """Exit status of the tests, -1 where they take too long, and seconds."""
        env = os.environ | {"PYTHONPATH": str(self.folder), "OMP_WAIT_POLICY": "passive"}
        env["NUMBA_DISABLE_JIT"] = "1" if pure else "0"
        if limit is not None:  # the files of a mutant are not kept
            env["PYTHONDONTWRITEBYTECODE"] = "1"
        options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
        begin = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=self.folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=_limit_memory if os.name == "posix" else None,
        )
        try:
            text, _ = process.communicate(timeout=limit)
            status = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            text, _ = process.communicate()
            status = -1
        self.text = text
        return status, time.monotonic() - begin

    def judge(self, mutant):
        """Run the nearest tests against a mutant, and note the outcome."""
        tests, pure = self.tests(mutant["file"]), "_kernels/" in mutant["file"]
        if (tests, pure) not in self.times:
            status, _ = self.run(tests, pure)
            if status:
                sys.exit(f"The tests fail without a change:\n{self.text}")
            _, self.times[tests, pure] = self.run(tests, pure)
        path, original = self.folder / mutant["file"], ROOT / mutant["file"]
        path.write_text(source_and_mutant(mutant)[1])
        try:
            status, mutant["seconds"] = self.run(tests, pure, 3 * self.times[tests, pure] + 30)
        finally:
            shutil.copy2(original, path)
        mutant["outcome"] = {0: "survived", -1: "too long"}.get(status, "killed")
        failed = [line for line in self.text.splitlines() if line.startswith(("FAILED", "ERROR"))]
        mutant["by"] = failed[0][:200] if failed else ""


def _limit_memory():
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES << 30,) * 2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", default=TARGETS, help="files or folders")
    parser.add_argument("--count", type=int, default=200, help="number of mutants")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--first", type=int, default=0, help="number in the sample to begin with")
    parser.add_argument("--write", help="file for all outcomes")
    parser.add_argument("--again", help="file of outcomes whose survivors are tried again")
    options = parser.parse_args()
    found = find(options.targets)
    if options.again:
        before = json.loads(Path(options.again).read_text())
        mutants = [find_again(found, m) for m in before if m["outcome"] == "survived"]
    else:
        mutants = draw(found, options.count, options.seed)[options.first :]
    n_changes = sum(map(len, found.values()))
    print(f"{len(mutants)} of {n_changes} changes of {len(found)} lines", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(folder)
        for number, mutant in enumerate(mutants, 1):
            stage.judge(mutant)
            place = f"{mutant['file']}:{mutant['line']}"
            print(
                f"{number:4} {mutant['outcome']:8} {mutant['seconds']:5.0f} s  {place}", flush=True
            )
            if options.write:
                Path(options.write).write_text(json.dumps(mutants[:number], indent=1))
    alive = [m for m in mutants if m["outcome"] == "survived"]
    for mutant in alive:
        print(f"\n{mutant['file']}:{mutant['line']}\n{difference(mutant)}")
    print(f"\n{len(mutants) - len(alive)} of {len(mutants)} killed, {len(alive)} survived")


if __name__ == "__main__":
    main()
