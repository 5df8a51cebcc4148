"""Mutation testing: does a test fail if a line of the package is bent or taken out?

    python benchmarks/mutants.py --count 200 --seed 0 --write mutants.json
    python benchmarks/mutants.py --again mutants.json              # its survivors, after new tests
    python benchmarks/mutants.py --count 40 _kernels/tiles.py      # some files or folders
    python benchmarks/mutants.py _inputs.py --tests errors weights # with some tests only

A mutant is the package with one change: another operator, a number plus one, a condition that is
negated or never met, an argument left out, or a statement left out. Lines are drawn evenly from the
files, and one change of each line. A mutant survives if no test fails. The changes of the survivors
are printed at the end: each asks for a test, or for a reason why no result depends on it.

The tests that are nearest to the files (`NEAREST`) run once without a change, and every line of the
package that a test runs is noted. A mutant meets the tests that run its line, the quickest first,
until one fails or their times add up to `SECONDS`. A change outside of all functions meets the
tests that run any line of the file, or no line. A mutant that hangs, or takes 8 GB of memory, is
killed. One whose line no test runs survives.

Kernels go into a call of their own, in pure Python (``NUMBA_DISABLE_JIT=1``): the cache of the
compiler does not notice the changes. Checkouts are not touched: all happens in a temporary copy.
Tests run in forks of a process that has imported NumPy and Numba, and has started no thread.

Libraries for the purpose were considered. mutmut leaves out all functions with decorators.
cosmic-ray has one command for all mutants of a session, and no samples and no statements that are
left out.
"""

import argparse
import ast
import copy
import difflib
import importlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ("_engine", "_algebra", "_products", "recordings", "_inputs.py", "inference.py")
# Tests of a file, or of the files in a folder. The longest name that fits counts.
NEAREST = {
    "_engine": "stack guards glm conditioning weights regularizer families statistics claims",
    "_algebra": "stack guards glm conditioning claims regularizer",
    "_engine/proximal.py": "regularizer guards weights model_selection claims",
    "_engine/quadratic.py": "traces families guards conditioning weights",
    "_engine/observed.py": "weights guards shards traces",
    "_engine/result.py": "guards glm html",
    "_products": "products guards features glm weights covariates observation_models trace_columns",
    "_products/shards.py": "shards products guards streams",
    "_products/weighted_gram.py": "inference kernels",
    "_products/event_gram.py": "event_gram",
    "_inputs.py": "errors doors names glm weights guards sklearn covariates times rows",
    "_algebra/inverse.py": "inference",
    "inference.py": "inference guards connectivity weights conditioning",
    "recordings": "io times seconds doors guards coupling errors",
    "recordings/covariates.py": "recipe_covariates recipe_choices",
    "recordings/nwb.py": "nwb nwb_archives guards formats",
    "recordings/nwb_hdf5.py": "nwb nwb_archives guards",
    "recordings/nwb_objects.py": "formats infer_command",
    "recordings/conditions.py": "nwb formats",
    "recordings/table.py": "formats nwb nwb_archives",
    "recordings/load.py": "formats nwb_archives errors",
    "recordings/kilosort.py": "formats",
    "recordings/tables.py": "formats",
    "recordings/sortings.py": "formats",
    "recordings/blocks.py": "formats",
    "recordings/bins.py": "recipe_covariates",
    "recordings/series.py": "infer_command guards",
    "recordings/npz.py": "io nwb guards errors",
    "recordings/intervals.py": "times seconds nwb_archives guards io coupling",
    "recordings/spikes.py": "io seconds errors",
    "recordings/stream.py": "streams shards guards",
    "recordings/channels.py": "formats",
    "_kernels": "kernels products simulation",
}
GIGABYTES, SECONDS = 8, 20
CALLS = 10  # of a function in a test whose lines are noted
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
    """A mutant with its change where it is now, or None."""
    same = [
        change
        for (file, _), changes in found.items()
        for change in changes
        if (file, change.old, change.new) == (mutant["file"], mutant["old"], mutant["new"])
    ]
    if not same:
        print(f"{mutant['file']} no longer has {mutant['old']!r}")
        return None
    place = mutant["line"], mutant["begin"]
    near = min(same, key=lambda c: (abs(c.line - place[0]), abs(c.begin - place[1])))
    return mutant | near._asdict()


def mutated(mutant, source):
    """The source of a file with the change."""
    return Change(**{name: mutant[name] for name in Change._fields}).apply(source)


def difference(mutant):
    """The lines that a mutant removes and adds."""
    source = (ROOT / mutant["file"]).read_text()
    lines = [text.splitlines() for text in (source, mutated(mutant, source))]
    lines = list(difflib.unified_diff(*lines, lineterm="", n=0))
    return "\n".join(line for line in lines[2:] if not line.startswith("@@"))


def is_outside(mutant):
    """Whether a change is outside of all functions, where an import runs it."""
    tree = ast.parse((ROOT / mutant["file"]).read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return not any(f.body[0].lineno <= mutant["line"] <= f.end_lineno for f in functions)


# --- runs ---


class Tracer:
    """A plugin of pytest that notes the lines of some files that each test runs, and its time.

    What fixtures and the top of a file of tests run is noted for all tests of that file.
    """

    def __init__(self, files):
        self.files, self.lines, self.shared, self.seconds = set(files), {}, {}, {}

    def call(self, frame, event, arg):
        if frame.f_code.co_filename not in self.files:
            return None
        self.calls[frame.f_code] += 1
        return self.line if self.calls[frame.f_code] <= CALLS else None

    def line(self, frame, event, arg):
        self.now.add((frame.f_code.co_filename, frame.f_lineno))
        return self.line

    def trace(self, store, key):
        self.now, self.calls = store.setdefault(key, set()), Counter()
        threading.settrace(self.call)
        sys.settrace(self.call)
        begin = time.process_time()
        yield
        sys.settrace(None)
        self.seconds[key] = self.seconds.get(key, 0) + time.process_time() - begin

    @pytest.hookimpl(hookwrapper=True)
    def pytest_make_collect_report(self, collector):
        yield from self.trace(self.shared, collector.nodeid.split("::")[0])

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_setup(self, item):
        yield from self.trace(self.shared, item.nodeid.split("::")[0])

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item):
        yield from self.trace(self.lines, item.nodeid)

    def pytest_runtest_logreport(self, report):
        if not report.passed:
            self.lines.pop(report.nodeid, None)

    def found(self):
        """Seconds and lines of each test that passed."""
        return {
            test: (self.seconds[test], sorted(lines | self.shared[test.split("::")[0]]))
            for test, lines in self.lines.items()
        }


class Stage:
    """A temporary copy of the package with its tests, and what each test runs."""

    def __init__(self, folder, files, tests):
        self.folder = Path(folder)
        for name in ("fastglm", "tests", "benchmarks"):
            shutil.copytree(ROOT / name, self.folder / name)
        shutil.copy(ROOT / "pyproject.toml", self.folder)
        names = tests or {name for file in files for name in nearest(file)}
        paths = [f"tests/test_{name}.py" for name in sorted(names)]
        paths = [path for path in paths if (self.folder / path).exists()]
        tracer = Tracer(str(self.folder / file) for file in files)
        if self._fork(paths, None, tracer):
            sys.exit((self.folder / "output.txt").read_text())
        self.traced = json.loads((self.folder / "traced.json").read_text())

    def tests_of(self, mutant):
        """Tests that run the lines of a mutant, the quickest first, and their seconds."""
        name = str(self.folder / mutant["file"])
        some = range(mutant["line"], mutant["line"] + mutant["old"].count("\n") + 1)
        chosen = sorted(
            (seconds, test)
            for test, (seconds, lines) in self.traced.items()
            if any(file == name and (mutant["outside"] or line in some) for file, line in lines)
            or (mutant["outside"] and not lines)
        )
        total = list(itertools.accumulate(seconds for seconds, _ in chosen))
        n = max(1, sum(seconds <= SECONDS for seconds in total))
        return [test for _, test in chosen[:n]], sum(total[n - 1 : n])

    def judge(self, mutant):
        """Run the nearest tests against a mutant, and note the outcome."""
        tests, seconds = self.tests_of(mutant)
        mutant |= {"tests": len(tests), "outcome": "survived", "by": ""}
        path = self.folder / mutant["file"]
        original = path.read_bytes(), path.stat()
        path.write_text(mutated(mutant, original[0].decode()))
        begin = time.monotonic()
        try:
            status = self._fork(tests, 60 + 5 * seconds) if tests else 0
        finally:
            path.write_bytes(original[0])
            os.utime(path, ns=(original[1].st_atime_ns, original[1].st_mtime_ns))
        mutant["seconds"] = time.monotonic() - begin
        if status:
            text = (self.folder / "output.txt").read_text().splitlines()
            failed = [line for line in text if line.startswith(("FAILED", "ERROR", "E  "))]
            mutant |= {"outcome": "killed", "by": failed[-1][:150] if failed else str(status)}

    def _fork(self, tests, limit, tracer=None):
        """Exit status of the tests in a fork, which is killed after some seconds."""
        child = os.fork()
        if not child:
            try:
                os.setsid()
                os._exit(self._run(tests, tracer))
            except BaseException:
                traceback.print_exc()
                os._exit(3)
        begin = time.monotonic()
        while True:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            if limit is not None and time.monotonic() - begin > limit:
                os.killpg(child, signal.SIGKILL)
                limit = None
            time.sleep(0.05)

    def _run(self, tests, tracer):
        output = os.open(self.folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(self.folder)
        sys.path.insert(0, str(self.folder))
        os.environ["PYTHONPATH"] = str(self.folder)
        options = ["-q", "--no-header", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
        if tracer is None:
            sys.dont_write_bytecode = True
            resource.setrlimit(resource.RLIMIT_AS, (GIGABYTES << 30,) * 2)
            return pytest.main([*options, "-x", *tests])
        import fastglm  # noqa: F401  # what a first import runs is not a test's

        pytest.main([*options, *tests], plugins=[tracer])
        (self.folder / "traced.json").write_text(json.dumps(tracer.found()))
        return 0


def nearest(file):
    """Names of the tests that are nearest to a file."""
    name = file.removeprefix("fastglm/")
    return NEAREST[max((k for k in NEAREST if name.startswith(k)), key=len)].split()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", default=TARGETS, help="files or folders")
    parser.add_argument("--count", type=int, default=200, help="number of mutants")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--write", help="file for all outcomes")
    parser.add_argument("--again", help="file of outcomes whose survivors are tried again")
    parser.add_argument("--tests", nargs="+", help="names of tests in place of the nearest ones")
    options = parser.parse_args()
    found = find(options.targets)
    mutants = draw(found, options.count, options.seed)
    if options.again:
        before = json.loads(Path(options.again).read_text())
        mutants = [find_again(found, m) for m in before if m["outcome"] == "survived"]
        mutants = [mutant for mutant in mutants if mutant is not None]
    for mutant in mutants:
        mutant |= {"difference": difference(mutant), "outside": is_outside(mutant)}
    n_changes = sum(map(len, found.values()))
    print(f"{len(mutants)} of {n_changes} changes of {len(found)} lines", flush=True)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if all("_kernels" in mutant["file"] for mutant in mutants):
        os.environ["NUMBA_DISABLE_JIT"] = "1"
    for name in ("numba", "scipy.optimize", "scipy.stats", "sklearn.linear_model"):
        importlib.import_module(name)  # once for all forks
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(folder, {mutant["file"] for mutant in mutants}, options.tests)
        for number, mutant in enumerate(mutants, 1):
            stage.judge(mutant)
            outcome = f"{mutant['outcome']:8} {mutant['seconds']:5.0f} s"
            print(f"{number:4} {outcome}  {mutant['file']}:{mutant['line']}", flush=True)
            if options.write:
                Path(options.write).write_text(json.dumps(mutants[:number], indent=1))
    alive = [m for m in mutants if m["outcome"] == "survived"]
    for mutant in alive:
        print(f"\n{mutant['file']}:{mutant['line']}, {mutant['tests']} tests")
        print(mutant["difference"])
    print(f"\n{len(mutants) - len(alive)} of {len(mutants)} killed, {len(alive)} survived")


if __name__ == "__main__":
    main()
