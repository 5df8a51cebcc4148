"""Pairs of one channel: what the scan does not see of them, and how they are known."""

import numpy as np
import pytest

import fastglm
from fastglm._pynapple import Columns
from fastglm.connectivity import filters as reading
from fastglm.connectivity import scan
from fastglm.connectivity.filters import Filters
from fastglm.connectivity.null import cut_reverse, fit_bulk, slow_input
from fastglm.connectivity.shadows import hidden_directions, n_hidden, read_channels, sentence
from fastglm.recordings.channels import find_channels, number_labels

RAISED = fastglm.basis.RaisedCosineLogConv


def filters_of(kernel, bin_size, n_cells=4, shadowed=True, seed=0, size=1.0):
    """Filters of noise, with covariances as of a fit with many events."""
    rng = np.random.default_rng(seed)
    pairs = np.argwhere(~np.eye(n_cells, dtype=bool))
    covariance = size * np.linalg.inv(kernel.T @ kernel)
    coef = rng.multivariate_normal(np.zeros(len(covariance)), covariance, size=len(pairs))
    row = np.full((n_cells, n_cells), -1)
    row[tuple(pairs.T)] = np.arange(len(pairs))
    return Filters(
        pairs, coef, np.stack([covariance] * len(pairs)), kernel, row[pairs[:, 1], pairs[:, 0]],
        bin_size, np.full(len(pairs), shadowed),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kernel", "bin_size", "hidden"),
    [
        (RAISED(6, 50).kernel_, 0.001, 2),
        (RAISED(8, 100).kernel_, 0.0005, 4),
        (RAISED(5, 25).kernel_, 0.002, 1),
        (RAISED(4, 10).kernel_, 0.005, 1),
        (np.eye(8), 0.001, 2),
    ],
)
def test_events_at_hidden_lags_do_not_move_the_scan(kernel, bin_size, hidden):
    """What a least-squares fit makes of them has no part in z, of any size."""
    assert n_hidden(len(kernel), bin_size) == hidden
    plain = filters_of(kernel, bin_size, size=1e-4)  # a hundred deviations are 1
    moved = filters_of(kernel, bin_size, size=1e-4)
    blips = np.linalg.pinv(kernel)[:, :hidden]
    moved.coef = moved.coef + (blips @ np.full(hidden, -0.3))
    found, other = scan.scan(plain), scan.scan(moved)
    np.testing.assert_allclose(found.z, other.z, atol=0.2)
    assert (found.delay >= hidden * bin_size - 1e-9).all()
    moved.shadowed[:] = False
    assert np.abs(scan.scan(moved).z - found.z).max() > 2
    # A synapse that begins later counts.
    moved.shadowed[:] = True
    shape = scan.synapses(plain)[1][-1 if len(kernel) < 20 else 5]
    moved.coef = plain.coef + 0.3 * shape / np.linalg.norm(kernel @ shape)
    assert np.abs(scan.scan(moved).z - found.z).min() > 5


def test_a_basis_with_few_functions_in_the_hidden_lags_keeps_its_power():
    kernel = RAISED(6, 100).kernel_  # of 0.5 ms: four lags, which three functions describe
    assert hidden_directions(kernel, 0.0005).shape == (6, 3)
    lit, dark = (filters_of(kernel, 0.0005, shadowed=one, size=1e-6) for one in (False, True))
    delays, shapes = scan.synapses(lit)
    at = int(np.argmin(np.abs(delays - 0.004)))
    for one in (lit, dark):
        one.coef = one.coef + 0.01 * shapes[at]
    np.testing.assert_allclose(scan.scan(dark).z, scan.scan(lit).z, rtol=0.1)
    # Functions that begin after the hidden lags lose nothing at all.
    late = np.vstack([np.zeros((2, 4)), RAISED(4, 48).kernel_])
    assert hidden_directions(late, 0.001).shape == (4, 0)


def test_nothing_is_left_where_all_functions_are_hidden():
    found = scan.scan(filters_of(RAISED(2, 4).kernel_[:, :1], 0.001))
    assert (found.z == 0).all()
    assert (found.p_value == 1).all()
    found = scan.scan(filters_of(np.eye(2), 0.001))
    assert (found.z == 0).all()


def test_the_bulk_does_not_see_them():
    kernel = RAISED(4, 50).kernel_
    filters = filters_of(kernel, 0.001, n_cells=20, shadowed=False)
    rng = np.random.default_rng(1)
    dark = np.zeros((20, 20), dtype=bool)
    dark[:3, :3] = ~np.eye(3, dtype=bool)
    filters.shadowed = dark[tuple(filters.pairs.T)]
    before = fit_bulk(filters, fit_bulk(filters))
    slow = slow_input(filters, before, np.zeros((len(filters.pairs), 4, 4)))
    other = cut_reverse(filters)
    blips = np.linalg.pinv(kernel)[:, :2] @ rng.normal(size=(2, 6)) * 50
    filters.coef[filters.shadowed] += blips.T
    after = fit_bulk(filters, fit_bulk(filters))
    # Nor are they slow input because of their first 2 ms.
    nothing = np.zeros((len(filters.pairs), 4, 4))
    slower = slow_input(filters, after, nothing)
    np.testing.assert_array_equal(after.spread, before.spread)
    np.testing.assert_allclose(cut_reverse(filters), other, atol=1e-9)
    np.testing.assert_allclose(after.mean, before.mean, atol=1e-9)
    np.testing.assert_array_equal(slower, slow)
    filters.shadowed[:] = False
    assert np.abs(fit_bulk(filters).spread - before.spread).max() > 0.01


# --- a sorter ---


def sorted_cells(dead, seed=0, n_channels=8, seconds=50.0, rate=100.0):
    """Independent cells, two on each channel, of whose spikes a sorter loses some.

    On channel 0 one cell drives the other after 4 ms.
    """
    rng = np.random.default_rng(seed)
    trains, channels = [], np.repeat(np.arange(n_channels), 2)
    for channel in range(n_channels):
        one, other = (rng.uniform(0, seconds, rng.poisson(rate * seconds)) for _ in range(2))
        if channel == 0:
            after = one[rng.random(one.size) < 0.15]
            other = np.append(other, after + 0.004 + rng.exponential(0.001, after.size))
        times = np.concatenate([one, other])
        unit, order = np.repeat([0, 1], [one.size, other.size]), np.argsort(times)
        kept, last = np.zeros(times.size, dtype=bool), -1.0
        for k in order:
            if times[k] - last >= dead:
                kept[k], last = True, times[k]
        trains += [np.sort(times[kept & (unit == k)]) for k in (0, 1)]
    return [t[t < seconds] for t in trains], channels


def test_dead_time_of_a_channel_is_no_inhibition():
    trains, channel = sorted_cells(dead=0.001)
    found = fastglm.infer_connectivity(trains, bin_size=0.0005, channel=channel)
    data = found.model, found.model.X_, found.model.counts_
    without = fastglm.connectivity.coupling_map(*data, null="empirical")
    same = found.same_channel
    assert same.sum() == 16
    assert (without.significant() & same & (without.z < 0)).sum() > 7
    assert np.argwhere(found.significant() & same).tolist() == [[0, 1]]
    assert (found.significant() & ~same).sum() <= 1
    assert 2 <= found.delay[0, 1] <= 5
    assert found.z[0, 1] > 6
    assert np.nanmin(found.delay[same]) >= 2
    assert "16 couplings are between cells of one channel (given)" in found.channel
    assert "the test leaves out their first 2 ms" in found.settings["channels"]
    assert repr(found).endswith("; 16 pairs of one channel")
    # The sorter cannot see two spikes at once; what it makes of that stands apart.
    assert "and 8 of 8 of one channel," in found.settings["synchrony"]
    model = fastglm.connectivity.coupling_map(*data, channel=channel)
    wald = found.uncertainty.wald_test().p_value[:16]
    np.testing.assert_allclose(model.p_value, wald, rtol=1e-12)
    assert np.nanmin(model.delay[same]) >= 2
    assert "which the p-values do not" in model.channel


# --- whose channel is known ---


def test_labels():
    assert number_labels(["a", "", "b", None, "a", np.nan, 3, 3.0]).tolist() == [
        0, -1, 1, -1, 0, -1, 2, 2,
    ]  # fmt: skip
    assert number_labels(np.array([5, 5, 7])).tolist() == [0, 0, 1]
    assert find_channels({"area": ["x", "x"], "Tetrode": [1, 1]}) == "Tetrode"
    assert find_channels({"channel": [4, 5, 6], "electrode_group": ["a", "a", "b"]}) == (
        "electrode_group"
    )
    assert find_channels({"channel": [4, 5, 6]}) is None  # as good as ids
    assert find_channels({"electrode_group": ["probe"] * 21}) is None
    assert find_channels({"channel": [None, np.nan, ""]}) is None
    assert find_channels({}) is None


def test_channels_of_cells():
    cells = Columns([7, 8, 9], {"tetrode": [1, 1, 2], "area": ["x", "y", "y"]})
    same, source = read_channels(None, cells, cells, (3, 3), True)
    assert np.argwhere(same).tolist() == [[0, 1], [1, 0]]
    assert source == "column tetrode"
    same, source = read_channels("area", cells, None, (3, 3), True)
    assert np.argwhere(same).tolist() == [[1, 2], [2, 1]]
    assert source == "column area"
    for nothing in (read_channels(False, cells, cells, (3, 3), True),
                    read_channels(None, None, None, (3, 3), True)):  # fmt: skip
        assert not nothing[0].any()
        assert nothing[1] == ""
    pairs = np.ones((3, 3), dtype=bool)
    assert read_channels(pairs, None, None, (3, 3), True)[0].sum() == 6
    # Receivers that are other cells, on the same tetrodes.
    other = Columns([1, 2], {"tetrode": [2, 3]})
    same, _ = read_channels(None, cells, other, (3, 2), False)
    assert np.argwhere(same).tolist() == [[2, 0]]
    assert not read_channels(None, cells, None, (3, 2), False)[0].any()
    with pytest.raises(ValueError, match="channel is 'shank', but the cells have the columns"):
        read_channels("shank", cells, cells, (3, 3), True)
    with pytest.raises(ValueError, match="cells have the columns none"):
        read_channels("tetrode", None, None, (3, 3), True)
    with pytest.raises(ValueError, match=r"channel has shape \(2,\); expected 3 labels, or"):
        read_channels([1, 2], cells, cells, (3, 3), True)
    with pytest.raises(ValueError, match=r"channel has shape \(3,\); expected a boolean array"):
        read_channels([1, 2, 2], cells, other, (3, 2), False)
    with pytest.raises(ValueError, match="array of pairs of float64"):
        read_channels(np.ones((3, 3)), cells, cells, (3, 3), True)


def test_the_sentence_says_what_bins_can_do():
    same = np.ones((2, 2), dtype=bool)
    assert sentence(~same, "", 50, 0.001, False) == ""
    assert "first 5 ms, as bins are not divided" in sentence(same, "given", 10, 0.005, False)
    assert "loses their spikes of the first 2 ms" in sentence(same, "given", 10, None, True)


def test_a_map_has_the_column_of_its_recording(tmp_path):
    rng = np.random.default_rng(0)
    spikes = np.sort(rng.uniform(0, 20, 900))
    given = {"unit": rng.integers(3, size=900), "n_units": 3, "t_start": 0, "t_stop": 20}
    np.savez(tmp_path / "a.npz", spike_times=spikes, channel=["x", "y", "x"], **given)
    recording = fastglm.load_spikes(tmp_path / "a.npz")
    model = fastglm.fit_coupling(recording, window=0.05)
    found = model.coupling_map(model.X_, model.counts_)
    assert np.argwhere(found.same_channel).tolist() == [[0, 2], [2, 0]]
    assert "(column channel)" in found.channel
    pandas = pytest.importorskip("pandas")
    table = found.to_frame()
    assert isinstance(table, pandas.DataFrame)
    assert table["same_channel"].sum() == 2
    off = model.coupling_map(model.X_, model.counts_, channel=False)
    assert not off.same_channel.any()
    assert off.channel == ""
    np.savez(tmp_path / "b.npz", spike_times=spikes, channel=[1, 2], **given)
    with pytest.raises(ValueError, match=r"channel has shape \(2,\); expected \(3,\)"):
        fastglm.load_spikes(tmp_path / "b.npz")


def test_more_filters_than_a_chunk_and_some_of_one_channel(monkeypatch):
    filters = filters_of(RAISED(6, 50).kernel_, 0.001, n_cells=12)
    filters.shadowed = np.arange(len(filters.pairs)) % 3 == 0
    whole = scan.scan(filters)
    monkeypatch.setattr(reading, "_CHUNK", 7)
    parts = scan.scan(filters)
    np.testing.assert_allclose(parts.z, whole.z, rtol=1e-12)
    assert (parts.delay == whole.delay).all()
    filters.shadowed = np.zeros(len(filters.pairs), dtype=bool)
    lit = scan.scan(filters)
    np.testing.assert_allclose(lit.z[1::3], whole.z[1::3], rtol=1e-12)
    assert filters.lit.size == 132


def test_columns_of_nwb_files(tmp_path):
    """Numbers, texts, links to groups and rows of electrodes; a damaged one is left out."""
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.nwb", "w") as file:
        units = file.create_group("units")
        groups = [file.create_group(f"general/tetrode {k}") for k in (1, 2)]
        links = [groups[k].ref for k in (0, 0, 1)]
        for name, values in {
            "id": [4, 5, 6],
            "spike_times": np.arange(1.0, 10),
            "spike_times_index": [3, 6, 9],
            "depth": [0.1, 0.2, 0.3],
            "electrodes": [0, 1, 1, 0, 2],
            "electrodes_index": [2, 4, 5],
            "waveform": np.zeros((3, 4)),
        }.items():
            units[name] = values
        units.create_dataset("electrode_group", data=links, dtype=h5py.ref_dtype)
        lost = units.create_dataset("lost", (3,), dtype=h5py.ref_dtype)
        assert not lost[0]
    recording = fastglm.load_spikes(tmp_path / "a.nwb")
    assert recording.metadata == {
        "depth": [0.1, 0.2, 0.3],
        "electrodes": ["0 1", "0 1", "2"],
        "electrode_group": ["tetrode 1", "tetrode 1", "tetrode 2"],
    }
    some = fastglm.load_spikes(tmp_path / "a.nwb", where="id > 4")
    assert some.metadata["electrode_group"] == ["tetrode 1", "tetrode 2"]
    events, _ = recording.events(0.1)
    assert events.columns.metadata == recording.metadata


def test_the_command_line_takes_a_column(tmp_path, capsys):
    from fastglm.cli import main

    rng = np.random.default_rng(0)
    given = {"unit": rng.integers(3, size=900), "n_units": 3, "t_start": 0, "t_stop": 20}
    path, page = str(tmp_path / "a.npz"), tmp_path / "a.html"
    np.savez(path, spike_times=np.sort(rng.uniform(0, 20, 900)), channel=[1, 2, 1], **given)
    fit = ["fit", path, "--bin-size", "0.005", "--window", "0.05", "--ridge", "1e-3"]
    main([*fit, "--report", str(page)])
    assert "2 of 6 couplings (column channel)" in capsys.readouterr().out
    text = page.read_text()
    assert "2 couplings are between cells of one channel (column channel)" in text
    assert "leave out their first 5 ms, as bins are not divided" in text
    with pytest.raises(SystemExit):
        main([*fit, "--channel", "shank"])
    assert "channel is 'shank', but the cells have the columns" in capsys.readouterr().err
