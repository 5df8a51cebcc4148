"""Files: whole or not at all when they are written, and read without trust in what they declare."""

import json
import os
import stat
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import scipy.sparse

import fastglm
from fastglm._files import check_output, read_npz, reading, replacing
from fastglm.io import save_model

# --- writing ---


def test_a_file_takes_the_place_of_another_only_when_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    with pytest.raises(TypeError, match="bytes-like"), replacing(path) as file:
        file.writelines([b"newer", 5])
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_file_that_need_not_last_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(os, "fsync", waits.append)
    for lasting in (False, True):
        with replacing(tmp_path / "a", lasting) as file:
            file.write(b"new")
        assert len(waits) == lasting


def test_links_and_modes_are_kept(tmp_path):
    path, link = tmp_path / "a.txt", tmp_path / "link.txt"
    path.write_bytes(b"old")
    path.chmod(0o640)
    link.symlink_to(path)
    with replacing(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_name_of_the_longest_kind_is_written(tmp_path):
    path = tmp_path / ("x" * 250 + ".npz")
    with replacing(check_output(path)) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_outputs_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"There is no folder .*none to write to"):
        check_output(tmp_path / "none" / "a.npz")
    with pytest.raises(ValueError, match="is a folder; expected the name of a file"):
        check_output(tmp_path)
    with pytest.raises(ValueError, match=r"cannot be written: File name too long\."):
        check_output(tmp_path / ("x" * 300))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="is no regular file"):
        check_output(tmp_path / "fifo")
    assert os.listdir(tmp_path) == ["fifo"]


def test_what_the_system_refuses_is_said(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.touch", refuse)
    with pytest.raises(ValueError, match=r"a\.npz cannot be written: Permission denied\."):
        check_output(tmp_path / "a.npz")
    (tmp_path / "a.npz").write_bytes(b"")
    monkeypatch.setattr(os, "access", lambda *a: False)
    with pytest.raises(ValueError, match=r"a\.npz is read-only; give another name"):
        check_output(tmp_path / "a.npz")


def save(path):
    small().save_params(path)


def report(path):
    pytest.importorskip("matplotlib")
    from fastglm.report import write_report

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2)), rng.poisson(1.0, 60)
    write_report(path, fastglm.GLM().fit(X, y), X, y)


def picture(path):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    from fastglm.plotting import figures

    figures._save(figure, path)


@pytest.mark.parametrize(
    ("write", "name"), [(save, "a.npz"), (report, "a.html"), (picture, "a.png"), (picture, "a.SVG")]
)
def test_a_full_disk_leaves_the_old_output(tmp_path, monkeypatch, write, name):
    path = tmp_path / name
    path.write_bytes(b"old")
    sizes = []

    def full(descriptor):
        sizes.append(os.fstat(descriptor).st_size)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(path)
    assert sizes[0] > 300
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == [name]


# --- reading ---


def npy(shape, dtype="<f8", data=bytes(80)):
    """An array of NumPy's format with the declared shape, and these bytes."""
    head = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    head += b" " * (64 - (10 + len(head) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


def archive(path, compression=zipfile.ZIP_DEFLATED, **members):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, value in members.items():
            file.writestr(f"{name}.npy", value)
    return path


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((10**12,), "<f8"), ((11,), "<f8"), ((10**9, 10**9), "<i4"), ((10**13,), "|S0")],
)
def test_an_array_that_declares_more_than_it_has_is_refused(tmp_path, compression, shape, dtype):
    path = archive(tmp_path / "a.npz", compression, x=npy(shape, dtype))
    with pytest.raises(ValueError, match=r"a\.npz could not be read as a recording"):
        read_npz(path, "a recording")


def test_an_array_that_is_all_there_is_read(tmp_path):
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = archive(tmp_path / "a.npz", compression, x=npy((10,)), y=npy((0, 5), data=b""))
        found = read_npz(path, "a recording")
        assert (found["x"].shape, found["y"].shape) == ((10,), (0, 5))
    many = np.zeros(10**6)  # deflated to a thousandth
    np.savez_compressed(path, x=many)
    np.testing.assert_array_equal(read_npz(path, "a recording")["x"], many)


def test_a_member_that_declares_more_than_the_archive_holds_is_refused(tmp_path):
    path = archive(tmp_path / "a.npz", x=npy((10**12,)))
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")  # the directory: its size after unpacking
    data[at + 24 : at + 28] = struct.pack("<I", 2**31)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="could not be read as a recording"):
        read_npz(path, "a recording")


def test_memory_is_not_taken_for_what_is_declared(tmp_path):
    path = archive(tmp_path / "a.npz", spike_times=npy((10**8,)))
    tracemalloc.start()
    with pytest.raises(ValueError, match="could not be read as a recording"):
        fastglm.load_spikes(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KeyError("x"), r"a\.nwb could not be read as NWB: it is damaged \(KeyError: 'x'\)\.$"),
        (RuntimeError("a\n b"), r"it is damaged \(RuntimeError: a b\)\.$"),
        (AttributeError(), r"it is damaged \(AttributeError\)\.$"),
        (MemoryError("much"), "it is too large for the memory, or damaged"),
        (ValueError("odd\ntimes"), r"a\.nwb: odd times$"),
        (ValueError("in a.nwb: odd"), r"^in a\.nwb: odd$"),
    ],
)
def test_errors_of_libraries_are_one_line_that_names_the_file(error, message):
    with pytest.raises(ValueError, match=message) as found, reading("a.nwb", "NWB"):
        raise error
    assert "\n" not in str(found.value)


def test_errors_that_say_what_is_missing_pass():
    for kind in (ImportError, FileNotFoundError, PermissionError, KeyboardInterrupt):
        with pytest.raises(kind), reading("a.nwb", "NWB"):
            raise kind("h5py")


# --- recordings and models ---


def recording(path, **changes):
    arrays = {"spike_times": [0.1, 0.2, 0.3], "unit": [0, 1, 0], "n_units": 2}
    np.savez(path, **{**arrays, "t_start": 0.0, "t_stop": 1.0, **changes})
    return path


@pytest.mark.parametrize("n_units", [200_000, 5 * 10**6, 1e12])
def test_units_that_are_only_declared_are_refused(tmp_path, n_units):
    with pytest.raises(ValueError, match=r"a\.npz: n_units is .*(3 spikes|are supported)"):
        fastglm.load_spikes(recording(tmp_path / "a.npz", n_units=n_units))


def test_text_is_no_adjacency(tmp_path):
    path = recording(tmp_path / "a.npz", adjacency=np.full((2, 2), "x"))
    with pytest.raises(ValueError, match=r"adjacency .* numbers \(dtype <U1\)"):
        fastglm.load_spikes(path)


@pytest.mark.filterwarnings("ignore:.*are times in ms or samples")
def test_bins_that_are_only_declared_are_refused(tmp_path):
    spikes = fastglm.load_spikes(recording(tmp_path / "a.npz", t_stop=3e6))
    with pytest.raises(ValueError, match=r"3 spikes in 300,000,000 bins of 0.01 s: .* 34.7 days"):
        spikes.events(0.01)
    assert spikes.events(1000.0)[0].shape == (3000, 2)


def small(kind=fastglm.PopulationGLM, **params):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 2)), rng.poisson(1.0, (60, 3))
    return kind(**params).fit(X, y[:, 0] if kind is fastglm.GLM else y)


def replace_in(path, header=None, **changes):
    with np.load(path) as given:
        arrays = dict(given)
    if header is not None:
        arrays["header"] = np.array(json.dumps(json.loads(str(arrays["header"])) | header))
    np.savez(path, **(arrays | changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"header": {"class": "GLM"}}, "3 receivers in a GLM, which has one"),
        ({"mask": np.ones((3, 3))}, r"feature_mask has shape \(3, 3\)"),
        ({"mask": np.full((2, 3), 2)}, "feature_mask holds other values"),
        ({"mask_columns": np.ones(2)}, "mask of 'columns' is no 0 or 1 for each of 3 receivers"),
        ({"strength": np.ones(2)}, r"strength or ratio of shape \(2,\) for 3 receivers"),
        ({"strength": np.ones((9, 3))}, r"strength or ratio of shape \(9, 3\)"),
        ({"strength": np.array(-1.0)}, "negative or not finite"),
        ({"result_coef": np.ones((2, 3), complex)}, "coef has dtype complex128, not float64"),
        ({"result_coef": np.ones((0, 3))}, r"coef has shape \(0, 3\)"),
        ({"result_n_iter": np.ones(3)}, "n_iter has dtype float64, not int64"),
        ({"result_status": np.array(["fine"] * 3)}, "status holds 'fine', which no receiver has"),
        ({"scale": np.ones(3, complex)}, "scale has shape"),
        ({"header": {"fit": {"weighted": 1}}}, "fit is {'weighted': 1"),
        ({"header": {"params": {}}}, "KeyError: 'regularizer'"),
    ],
)
def test_a_model_of_a_foreign_shape_is_refused(tmp_path, change, message):
    path = tmp_path / "model.npz"
    small(regularizer="Ridge").save_params(path)
    replace_in(path, **change)
    with pytest.raises(ValueError, match=rf"is a damaged model file: .*{message}"):
        fastglm.load_model(path)


def test_a_matrix_that_is_only_declared_is_refused(tmp_path):
    path, matrix = tmp_path / "model.npz", scipy.sparse.csr_array(np.eye(2))
    smooth = fastglm.regularizer.Quadratic(matrix)
    save_model(small(regularizer=smooth, regularizer_strength=0.1), path)
    assert fastglm.load_model(path).regularizer.matrix.shape == (2, 2)
    replace_in(path, regularizer_matrix=np.array([[1e13, 1e13, 0], [0, 0, 1]]))
    with pytest.raises(ValueError, match=r"matrix has shape .* for 2 features"):
        fastglm.load_model(path)
    replace_in(path, regularizer_matrix=np.array([[2, 2, 0], [-1, 0, 1]]))
    with pytest.raises(ValueError, match="is a damaged model file"):
        fastglm.load_model(path)


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        (fastglm.GLM, {"regularizer": "Lasso", "regularizer_strength": [0.1, 0.2]}),
        (fastglm.PopulationGLM, {"regularizer": "Ridge", "regularizer_strength": np.ones((2, 3))}),
        (fastglm.PopulationGLM, {"regularizer": "GroupLasso", "regularizer_strength": [1e-3] * 3}),
        (fastglm.PopulationGLM, {"feature_mask": {"columns": [True, True, False]}}),
    ],
)
def test_models_that_fit_their_shapes_are_read(tmp_path, kind, params):
    model = small(kind, **params)
    model.save_params(tmp_path / "model.npz")
    np.testing.assert_array_equal(fastglm.load_model(tmp_path / "model.npz").coef_, model.coef_)


def test_a_header_that_is_nested_without_end_is_refused(tmp_path):
    path = tmp_path / "model.npz"
    small().save_params(path)
    with np.load(path) as given:
        arrays = dict(given)
    np.savez(path, **(arrays | {"header": np.array("[" * 100_000)}))
    with pytest.raises(ValueError, match="is not a model of fastglm"):
        fastglm.load_model(path)
