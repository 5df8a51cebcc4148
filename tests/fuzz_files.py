"""Damaged and hostile files: every one is refused in one line of ours, or read right.

``python tests/fuzz_files.py --n 1000 --seed 0`` tries a thousand files of each kind (recordings in
``.npz``, NWB, folders of Kilosort, tables; models; checkpoints) and prints what it covered. A file
fails if reading it

- raises anything but a ValueError of one line that names the file,
- warns of anything but what a user should know (UserWarning),
- allocates far more than the file holds, or takes seconds,
- gives a result that is not what the file says.

Half of the files have changed bytes. In the other half the container is sound and its content is
hostile: other shapes, types and numbers, and arrays that declare more than there is.
"""

import argparse
import collections
import io
import json
import struct
import sys
import tempfile
import time
import traceback
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np

import fastglm
from fastglm._batches.checkpoint import Checkpoint
from fastglm._engine.result import Result
from fastglm.io import save_model

ROOM = 50_000_000  # bytes that reading a small file may take
PATIENCE = 20.0  # seconds

# --- changes of bytes ---


def change(data, rng):
    """Bytes with a random change, and its name."""
    at = int(rng.integers(len(data)))
    size = int(rng.integers(1, 40))
    end, other = min(at + size, len(data)), int(rng.integers(len(data)))
    number = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1][rng.integers(7)]
    kinds = {
        "bit": lambda: data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :],
        "byte": lambda: data[:at] + rng.bytes(1) + data[at + 1 :],
        "insert": lambda: data[:at] + rng.bytes(size) + data[at:],
        "delete": lambda: data[:at] + data[end:],
        "cut": lambda: data[:at],
        "zeros": lambda: data[:at] + bytes(end - at) + data[end:],
        "repeat": lambda: data[:end] + data[at:],
        "move": lambda: data[:at] + data[other : other + size] + data[at + size :],
        "number": lambda: data[:at] + struct.pack("<Q", number) + data[at + 8 :],
        "append": lambda: data + rng.bytes(size),
    }
    name = str(rng.choice(list(kinds)))
    return kinds[name](), name


# --- hostile arrays ---


def other(array, rng):
    """An array of another shape, type or content."""
    array, size = np.asarray(array), int(rng.integers(0, 6))
    numbers = [np.nan, np.inf, -np.inf, 1e300, -1.0, 0.5, 2.0**31, 2.0**63, 5e-324]
    with np.errstate(over="ignore"):
        half = array.astype(np.float16) if array.dtype.kind in "fiu" else array
    made = [
        np.full(array.shape, rng.choice(numbers)),
        np.full(array.shape, [2**63 - 1, -(2**63), 10**7, -1, 2**31][rng.integers(5)]),
        np.full(array.shape, 2**64 - 1, np.uint64),
        np.zeros(size),
        np.zeros((size, 2)),
        np.array(rng.choice(numbers)),
        np.array(["text"] * size),
        np.array("text"),
        np.zeros(array.shape, complex),
        np.ones(array.shape, bool),
        np.zeros(array.shape, "datetime64[s]"),
        np.zeros(array.shape, [("a", "f8"), ("b", "i4")]),
        array[..., None],
        array[:-1] if array.ndim else array[None],
        array[::-1].copy() if array.ndim else array,
        np.concatenate([array, array]) if array.ndim else np.stack([array, array]),
        half,
    ]
    return made[int(rng.integers(len(made)))]


def hostile(array, rng):
    """An ``.npy`` file of another array, or of one that it does not hold."""
    if rng.random() < 0.2:
        return declared(rng)
    out = io.BytesIO()
    np.save(out, other(array, rng))
    return out.getvalue()


def declared(rng):
    """An ``.npy`` file that declares far more than it holds."""
    shape = [(10**13,), (2**40,), (10**6, 10**6), (2**63,), (-1,), (2**62, 4)][rng.integers(6)]
    dtype = ["<f8", "<i8", "|S0", "|V1000000", "<U1000000", "|O"][rng.integers(6)]
    head = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    head += b" " * (64 - (10 + len(head) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + rng.bytes(80)


def rewrite(data, rng, members=None):
    """An archive with one member left out or replaced, or with other members."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    if members is not None:
        content |= members
    else:
        name = str(rng.choice(list(content)))
        if rng.random() < 0.15:
            del content[name]
        else:
            content[name] = hostile(np.load(io.BytesIO(content[name])), rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in content.items():
            archive.writestr(name, value)
    return out.getvalue()


# --- kinds of files ---


class Kind:
    """A kind of file: a sound one, hostile ones, and what reading must give."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.path = self.folder / f"file{self.suffix}"
        self.make(self.path)
        self.data = self.path.read_bytes()
        self.expected = self.read(self.path)

    def case(self, rng):
        """The bytes of a case, and its name."""
        if rng.random() < 0.5:
            return change(self.data, rng)
        return self.hostile(rng), "hostile"

    def write(self, data):
        """Write a case."""
        self.path.write_bytes(data)


def check_spikes(spikes):
    """What holds for every recording that is read."""
    assert np.isfinite(spikes.spike_times).all()
    assert spikes.spike_times.shape == spikes.unit.shape
    assert ((spikes.unit >= 0) & (spikes.unit < spikes.n_units)).all()
    order = np.argsort(spikes.unit, kind="stable")
    assert ((np.diff(spikes.spike_times[order]) >= 0) | (np.diff(spikes.unit[order]) > 0)).all()
    assert (np.diff(spikes.segments) > 0).all()
    assert (spikes.segments.ravel()[1:-1:2] <= spikes.segments.ravel()[2::2]).all()
    assert repr(spikes)


class Recording(Kind):
    """A recording in ``.npz``."""

    suffix = ".npz"

    def make(self, path):
        rng = np.random.default_rng(0)
        np.savez(
            path,
            spike_times=np.sort(rng.uniform(0, 10, 60)),
            unit=rng.integers(0, 3, 60),
            n_units=3,
            t_start=0.0,
            t_stop=10.0,
            segments=[[0.0, 4.0], [5.0, 10.0]],
            adjacency=np.zeros((3, 3)),
        )

    def hostile(self, rng):
        return rewrite(self.data, rng)

    read = staticmethod(fastglm.load_spikes)

    def check(self, spikes, name):
        check_spikes(spikes)
        if name != "hostile":  # a checksum protects every byte
            np.testing.assert_array_equal(spikes.spike_times, self.expected.spike_times)
            np.testing.assert_array_equal(spikes.unit, self.expected.unit)
            np.testing.assert_array_equal(spikes.segments, self.expected.segments)
            return
        with np.load(self.path) as archive:
            np.testing.assert_array_equal(spikes.spike_times, archive["spike_times"])
            np.testing.assert_array_equal(spikes.unit, archive["unit"])


class Nwb(Kind):
    """A recording in NWB, which has no checksums: what changed bytes say is what is read."""

    suffix = ".nwb"

    def make(self, path):
        import h5py

        rng = np.random.default_rng(0)
        with h5py.File(path, "w") as file:
            file.attrs["nwb_version"] = "2.7.0"
            units = file.create_group("units")
            units["id"] = np.arange(3)
            units["spike_times"] = np.concatenate(
                [np.sort(rng.uniform(0, 10, n)) for n in (20, 30, 10)]
            )
            units["spike_times_index"] = np.array([20, 50, 60], np.uint8)
            units["obs_intervals"] = np.tile([[0.0, 4.0], [5.0, 10.0]], (3, 1))
            units["obs_intervals_index"] = np.array([2, 4, 6], np.uint8)
            units["quality"] = np.array(["good", "mua", "good"], h5py.string_dtype())
            trials = file.create_group("intervals").create_group("trials")
            trials["start_time"], trials["stop_time"] = [0.0, 3.0], [2.0, 9.0]

    def hostile(self, rng):
        import h5py

        path = self.folder / "hostile.nwb"
        path.write_bytes(self.data)
        with h5py.File(path, "r+") as file:
            table = file["intervals/trials"] if rng.random() < 0.2 else file["units"]
            name = str(rng.choice(list(table)))
            old = table[name][()]
            del table[name]
            way = rng.integers(6)
            if way == 0:  # left out
                pass
            elif way == 1:
                table.create_group(name)
            elif way == 2:  # nothing is stored of it
                shape = [(10**13,), (2**40, 2), (10**10,)][rng.integers(3)]
                table.create_dataset(name, shape, "f8", chunks=(1000, 2)[: len(shape)])
            elif way == 3:
                table[name] = h5py.SoftLink("/nowhere")
            else:
                value = other(old if old.dtype.kind != "O" else np.arange(len(old)), rng)
                if value.dtype.kind in "UM":
                    value = [b"text"] * 3
                table[name] = value
        return path.read_bytes()

    def read(self, path):
        self.n_read = getattr(self, "n_read", 0) + 1
        ways = ({}, {"where": "quality == 'good'"}, {"epochs": "trials"}, {"epochs": "obs"})
        return fastglm.load_spikes(path, **ways[self.n_read % 4])

    def check(self, spikes, name):
        check_spikes(spikes)


class Kilosort(Kind):
    """A folder of Kilosort and Phy, of which a case changes one file."""

    def __init__(self, folder):
        self.path = Path(folder, "kilosort")
        self.path.mkdir()
        rng = np.random.default_rng(0)
        arrays = {
            "spike_times": np.sort(rng.integers(0, 10**6, 60)),
            "spike_clusters": rng.integers(0, 3, 60).astype(np.int32),
            "spike_templates": rng.integers(0, 3, 60).astype(np.uint32),
            "templates": rng.normal(size=(3, 8, 4)).astype(np.float32),
            "templates_ind": np.tile(np.arange(4), (3, 1)),
            "channel_map": np.arange(4),
        }
        for name, values in arrays.items():
            np.save(self.path / f"{name}.npy", values)
        texts = {
            "params.py": "dat_path = 'raw.dat'\nn_channels_dat = 4\nsample_rate = 30000.\n",
            "cluster_group.tsv": "cluster_id\tgroup\n0\tgood\n1\tnoise\n",
        }
        for name, text in texts.items():
            (self.path / name).write_text(text)
        self.data = {path.name: path.read_bytes() for path in self.path.iterdir()}

    def case(self, rng):
        name = str(rng.choice(sorted(self.data)))
        content, how = self.data[name], "hostile"
        if name.endswith(".npy") and rng.random() < 0.5:
            content = hostile(np.load(io.BytesIO(content)), rng)
        else:
            content, how = change(content, rng)
        return self.data | {name: content}, how

    def write(self, data):
        for name, content in data.items():
            (self.path / name).write_bytes(content)

    read = staticmethod(fastglm.load_spikes)

    def check(self, spikes, name):
        check_spikes(spikes)


class Table(Kind):
    """A table of units and times, in text."""

    suffix = ".csv"

    def make(self, path):
        rows = [f"{'ab'[k % 2]},{k / 10},CA{k % 2}" for k in range(60)]
        path.write_text("\n".join(["unit,time,area", *rows, ""]))

    read = staticmethod(fastglm.load_spikes)

    def hostile(self, rng):
        values = ["", "nan", "1e999", "-1", "x" * 10**6, '"', "9" * 400, "\x00", "0.1,0.2,0.3"]
        lines = self.data.decode().split("\n")
        cells = lines[int(rng.integers(len(lines) - 1))].split(",")
        row = int(rng.integers(len(lines) - 1))
        cells[int(rng.integers(3))] = values[rng.integers(len(values))]
        lines[row] = ",".join(cells)
        return "\n".join(lines).encode()

    def check(self, spikes, name):
        check_spikes(spikes)


class Model(Kind):
    """A saved model."""

    suffix = ".npz"

    def make(self, path):
        rng = np.random.default_rng(0)
        counts = rng.poisson(0.3, (200, 3))
        X = fastglm.basis.HistoryConv(3).compute_features(counts)
        model = fastglm.PopulationGLM(
            regularizer=fastglm.regularizer.ElasticNet(0.5),
            regularizer_strength=np.array([0.1, 0.2, 0.3]),
            feature_mask=rng.random((9, 3)) < 0.8,
        )
        save_model(model.fit(X, counts), path, {"bin_size": 0.01})

    read = staticmethod(fastglm.load_model)

    def hostile(self, rng):
        if rng.random() < 0.5:
            return rewrite(self.data, rng)
        with np.load(io.BytesIO(self.data)) as archive:
            header = json.loads(str(archive["header"]))
        inner = header if rng.random() < 0.3 else header["params"]
        key = str(rng.choice([*inner, "other"]))
        values = [None, -1, 1e999, "text", [], {}, [[1, 2], [3]], True, 10**400, {"class": "x"}]
        inner[key] = values[rng.integers(len(values))]
        text = json.dumps(header)
        if rng.random() < 0.1:
            text = "[" * 100_000
        out = io.BytesIO()
        np.save(out, np.array(text))
        return rewrite(self.data, rng, {"header.npy": out.getvalue()})

    def check(self, model, name):
        assert model.coef_.ndim == (1 if model.single_receiver else 2)
        if name != "hostile":
            for key in ("coef_", "intercept_", "status_", "objective_", "scale_"):
                np.testing.assert_array_equal(getattr(model, key), getattr(self.expected, key))
            np.testing.assert_array_equal(model.feature_mask, self.expected.feature_mask)
        assert model.predict(np.zeros((2, len(model.coef_)))).shape[0] == 2
        assert repr(model)


class Saved(Kind):
    """A checkpoint of two records."""

    suffix = ".checkpoint"
    shape = 6, 4

    def make(self, path):
        rng = np.random.default_rng(0)
        first = Result.empty(*self.shape)
        saved = Checkpoint(path, "0" * 32)
        saved.save(first)
        second = Result.empty(*self.shape)
        second.coef[:], second.status[:] = rng.normal(size=self.shape), "converged"
        saved.add(np.array([0, 2]), second)

    def read(self, path):
        return Checkpoint(path, "0" * 32).load(*self.shape)

    def hostile(self, rng):
        """A count of receivers that nothing stands for, with other bytes."""
        at = int(rng.choice([20, 52, 60, 68, len(self.data) - 4]))
        number = [5, 2**31, 2**62, 2**64 - 1][rng.integers(4)]
        return self.data[:at] + struct.pack("<Q", number) + self.data[at + 8 :]

    def check(self, result, name):
        done = result.status != ""  # receivers whose record is whole
        assert not done[[1, 3]].any()
        np.testing.assert_array_equal(result.coef[:, done], self.expected.coef[:, done])
        assert (result.coef[:, ~done] == 0).all()


KINDS = {"npz": Recording, "nwb": Nwb, "kilosort": Kilosort, "table": Table}
KINDS |= {"model": Model, "checkpoint": Saved}


def judge(kind, name):
    """The outcome of reading the file of a kind, and what is wrong with it, or None."""
    tracemalloc.reset_peak()
    before, begin = tracemalloc.get_traced_memory()[0], time.perf_counter()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found, outcome = kind.read(kind.path), "read"
        except ValueError as error:
            found, outcome, text = None, "refused", str(error)
            if "\n" in text or str(kind.path) not in text:
                return outcome, f"message: {text!r}"
        except Exception:
            return "raised", traceback.format_exc()
        peak = tracemalloc.get_traced_memory()[1] - before
        if found is not None:
            try:
                kind.check(found, name)
            except Exception:
                return outcome, traceback.format_exc()
    if peak > ROOM:
        return outcome, f"{peak / 1e6:.0f} MB for a file of {kind.path.stat().st_size} bytes"
    if time.perf_counter() - begin > PATIENCE:
        return outcome, f"{time.perf_counter() - begin:.0f} s"
    strange = [w for w in told if not issubclass(w.category, UserWarning)]
    return outcome, f"warning: {strange[0].message}" if strange else None


def fuzz(name, n, seed):
    """Counts of changes and outcomes of n files of a kind, and the failures."""
    counts, failures = collections.Counter(), []
    tracemalloc.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            kind = KINDS[name](folder)
            for k in range(n):
                rng = np.random.default_rng([seed, k])
                data, how = kind.case(rng)
                kind.write(data)
                outcome, wrong = judge(kind, how)
                counts[how, outcome] += 1
                if wrong is not None:
                    failures.append((k, how, wrong))
    finally:
        tracemalloc.stop()
    return counts, failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--n", type=int, default=1000, help="files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    options = parser.parse_args()
    n_failed = 0
    for name in options.kinds:
        counts, failures = fuzz(name, options.n, options.seed)
        total = collections.Counter()
        for (_, outcome), number in counts.items():
            total[outcome] += number
        print(f"{name}: {options.n} files of seed {options.seed}, {dict(total)}")
        for how in sorted({how for how, _ in counts}):
            parts = {outcome: n for (h, outcome), n in sorted(counts.items()) if h == how}
            print(f"    {how}: {parts}")
        for k, how, wrong in failures[:20]:
            print(f"    FAILED case {k} ({how}): {wrong}")
        n_failed += len(failures)
    print(f"{n_failed} failures")
    return bool(n_failed)


if __name__ == "__main__":
    sys.exit(main())
