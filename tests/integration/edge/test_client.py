"""The edge client against ``fedali.step`` in torch, and what it keeps, takes and sends."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from fedali.bundle.keys import create, load_private
from fedali.data.normalisation import Normalisation, channel_statistics
from fedali.errors import BundleError, DataError, FedaliError, SettingsError
from fedali.methods import build_method, personal_indices, shared_indices
from fedali.optimizers.rules import SGD, Adam
from fedali.step import Batch, Hyper, Shared, State, make_predict, make_step
from fedali.transport.plans import ot_align
from fedali_client import EdgeClient
from tests.bundles import ALP, BATCH, CLASSES, SHAPE, small_model, toy_data, write_full

SCALE = Normalisation(np.float32([0.1, 0.2, 0.3]), np.float32([1.0, 2.0, 0.5]))  # of the test bundles


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle") / "small.fedali"
    write_full(path)
    return path


def opened(path, folder, **options):
    return EdgeClient.open(path, folder, **{"allow_unsigned": True, **options})


def theta_of(client):
    return client._state.theta()


def torch_fit(bundle, model, method, optimizer, x, y, epochs, steps=None, seed=0):
    """``fedali.step`` on the batches of fit 1, eagerly; the states after each step."""
    step = make_step(model, method, optimizer)
    initial = {name: torch.from_numpy(value) for name, value in bundle.state().items()}
    state = State(initial["theta"], *optimizer.initial(initial["theta"]), initial["local_prototypes"])
    shared = Shared(initial["shared_theta"], initial["shared_prototypes"])
    influence, decay = torch.tensor(0.2), torch.tensor(0.9)
    states, done = [state], 0
    for epoch in range(epochs):
        order = np.random.default_rng(np.random.SeedSequence([seed, 1, epoch])).permutation(len(x))
        for start in range(0, len(x), BATCH):
            chosen = order[start : start + BATCH]
            weights = torch.zeros(BATCH)
            weights[: len(chosen)] = 1.0
            filled = np.resize(chosen, BATCH)
            batch = Batch(torch.from_numpy(SCALE(x[filled])), torch.from_numpy(y[filled]), weights)
            done += 1
            hyper = Hyper(*map(torch.tensor, optimizer.schedule(done)), influence, decay)
            state, _ = step(state, batch, shared, hyper)
            states.append(state)
            if done == steps:
                return states
    return states


def relative(found, expected, start):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected - start)


@pytest.mark.parametrize(
    ("method", "alp", "optimizer"),
    [("fedali-paper", ALP, Adam()), ("fedavg", None, SGD(0.05, 0.9)), ("fedper", ALP, Adam())],
)
def test_training_is_the_training_of_torch(tmp_path, method, alp, optimizer):
    path = tmp_path / "m.fedali"
    model = small_model(alp)
    bundle = write_full(path, alp=alp, method=method, optimizer=optimizer)
    x, y = toy_data(45)
    expected = torch_fit(bundle, model, build_method(method), optimizer, x, y, 1)
    seen = []

    def note(now):
        slots = client._state.slots
        seen.append({name: array.copy() for name, array in slots.current.items()})

    with opened(path, tmp_path / "s") as client:
        report = client.fit(x, y, epochs=1, progress=note)
        final, found = theta_of(client), client.predict_proba(x)
    assert (report.steps, report.samples, report.fit) == (6, 45, 1)
    gradient = expected[1].first_moment.numpy()  # theta tells less: Adam's first step is little but a sign
    assert relative(seen[0]["first_moment"], gradient, 0 * gradient) <= 1e-5
    if alp is not None:
        before, moved = (state.local_prototypes.numpy() for state in expected[:2])
        assert relative(seen[0]["local_prototypes"], moved, before) <= 1e-5
    if isinstance(optimizer, SGD):
        assert relative(final, expected[-1].theta.numpy(), expected[0].theta.numpy()) <= 1e-4
    predict = make_predict(model, matcher="cosine")
    logits = predict(expected[-1].theta, expected[-1].local_prototypes, torch.from_numpy(SCALE(x)), 0.2)
    np.testing.assert_allclose(found, logits.softmax(-1).numpy(), atol=1e-5)


def test_predictions_are_those_of_torch_whatever_they_come_with(tmp_path, path):
    x, y = toy_data(21)
    with opened(path, tmp_path) as client:
        client.fit(x, y, epochs=3)
        theta, local = (
            torch.from_numpy(v) for v in (theta_of(client), client._state.local_prototypes.copy())
        )
        logits = make_predict(small_model(), matcher="cosine")(theta, local, torch.from_numpy(SCALE(x)), 0.2)
        expected = logits.softmax(-1).numpy()
        np.testing.assert_allclose(client.predict_proba(x), expected, atol=1e-5)
        np.testing.assert_allclose(client.predict_proba(x[7]), expected[7:8], atol=1e-5)
        assert client.predict(x) == [CLASSES[k] for k in expected.argmax(1)]
        found = client.evaluate(x, [CLASSES[k] for k in y])
        assert found.accuracy == (expected.argmax(1) == y).mean()
        assert found.samples == 21


def test_same_bits_twice_and_others_with_another_seed(tmp_path, path):
    x, y = toy_data()
    ends = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        with opened(path, tmp_path / name) as client:
            client.fit(x, y, epochs=3, seed=seed)
            ends.append(theta_of(client))
    assert (ends[0] == ends[1]).all()
    assert (ends[0] != ends[2]).any()


class StoppedError(Exception):
    pass


def stop_at(step):
    def progress(now):
        if now.step == step:
            raise StoppedError

    return progress


def test_an_interrupted_fit_goes_on_and_other_data_begin_anew(tmp_path, path):
    x, y = toy_data()
    with opened(path, tmp_path / "a") as client:
        whole = client.fit(x, y, epochs=4)
        again = client.fit(x, y, epochs=4)  # finished: the same data are a new fit
        expected = theta_of(client)
    assert (whole.fit, again.fit, again.resumed_at) == (1, 2, 0)
    with opened(path, tmp_path / "b") as client, pytest.raises(StoppedError):
        client.fit(x, y, epochs=4, progress=stop_at(7))
    with opened(path, tmp_path / "b") as client:
        resumed = client.fit(x, y, epochs=4)
        assert (resumed.fit, resumed.resumed_at, resumed.loss) == (1, 7, whole.loss)
        client.fit(x, y, epochs=4)
        assert (theta_of(client) == expected).all()
    for change in ({"epochs": 5}, {"seed": 1}, {"x": x + 1}, {"y": y[::-1]}):
        with opened(path, tmp_path / f"c-{next(iter(change))}") as client:
            arguments = {"x": x, "y": y, "epochs": 4, "seed": 0}
            with pytest.raises(StoppedError):
                client.fit(**arguments, progress=stop_at(7))
            report = client.fit(**{**arguments, **change})
            assert (report.fit, report.resumed_at) == (2, 0)


def test_a_round_takes_the_shared_part_and_sends_it_back(tmp_path):
    path = tmp_path / "m.fedali"
    model = small_model()
    method = build_method("fedali-head")
    bundle = write_full(path, personal=True)
    personal = personal_indices(method, model.parameter_layout)
    shared = shared_indices(method, model.parameter_layout)
    random = np.random.default_rng(5)
    sent = random.standard_normal(shared.size).astype(np.float32)
    prototypes = random.standard_normal(bundle.manifest.layouts.prototypes.size).astype(np.float32)
    x, y = toy_data()
    with opened(path, tmp_path) as client:
        with pytest.raises(DataError, match="fit it first"):
            client.update()
        client.fit(x, y, epochs=3)
        own = theta_of(client)
        client.receive(sent, prototypes, 4, 0.3)
        assert (theta_of(client)[shared] == sent).all()
        assert (theta_of(client)[personal] == own[personal]).all()
        assert (own[personal] != bundle.state()["theta"][personal]).any()
        assert (client._state.local_prototypes == prototypes).all()
        with pytest.raises(DataError, match="fit it first"):
            client.update()
    with opened(path, tmp_path) as client:
        client.fit(x, y, epochs=2)
        update = client.update()
        assert (update.theta == theta_of(client)[shared]).all()
        assert (update.theta != sent).any()
        assert (update.samples, update.round, update.bundle) == (45, 4, bundle.digest)
        local, layout = client._state.local_prototypes, bundle.manifest.layouts.prototypes
        for name, rows in layout.unflatten(local).items():
            expected = ot_align(rows, layout.unflatten(prototypes)[name])
            assert (layout.unflatten(update.prototypes)[name] == expected.astype(np.float32)).all()
        for arguments, line in (
            ((sent[1:], prototypes, 5, 0.3), r"theta has shape \[\d+\]; this bundle's shared part"),
            ((sent, prototypes[1:], 5, 0.3), "prototypes has shape"),
            ((sent, np.full_like(prototypes, np.nan), 5, 0.3), "prototypes holds NaN"),
            ((sent, prototypes, 5, 1.3), "influence is 1.3"),
        ):
            with pytest.raises(DataError, match=line):
                client.receive(*arguments)
        assert client.status().round == 4


def test_64_prototypes_are_aligned_as_the_server_does_it(tmp_path):
    path = tmp_path / "m.fedali"
    bundle = write_full(path, alp=type(ALP)(num_prototypes=(64,), decay=0.5))
    x, y = toy_data(90)
    with opened(path, tmp_path) as client:
        client.fit(x, y, epochs=4)
        layout = bundle.manifest.layouts.prototypes
        local = layout.unflatten(client._state.local_prototypes)["alp.0"]
        reference = layout.unflatten(bundle.state()["shared_prototypes"])["alp.0"]
        expected = ot_align(local, reference).astype(np.float32)
        assert (layout.unflatten(client.update().prototypes)["alp.0"] == expected).all()
        assert (expected != local).any()


def test_a_device_normalises_by_itself_where_the_bundle_says_so(tmp_path):
    path = tmp_path / "m.fedali"
    write_full(path, normalisation="client")
    write_full(tmp_path / "global.fedali")
    x, y = toy_data()
    x = 5 * x + 7
    with opened(path, tmp_path / "own") as client:
        before = client.predict_proba(x)
        with opened(tmp_path / "global.fedali", tmp_path / "global") as other:
            assert (before == other.predict_proba(x)).all()  # until it has data of its own
        client.fit(x, y, epochs=1)
        own = channel_statistics([x])
        kept = client._state.checkpoint.normalisation
        assert (kept.mean == own.mean).all()
        assert (kept.std == own.std).all()
        client.fit(2 * x, y, epochs=1)
        assert (client._state.checkpoint.normalisation.mean == own.mean).all()
    with opened(path, tmp_path / "own") as client:
        assert (client._state.checkpoint.normalisation.std == own.std).all()


def test_what_was_observed_is_trained_on(tmp_path, path):
    x, y = toy_data(60)
    with opened(path, tmp_path / "a", capacity=30) as client:
        with pytest.raises(DataError, match="no window with a label"):
            client.train_observed()
        for window, label in zip(x, y, strict=True):
            client.observe(window, CLASSES[label])
        client.observe(x[0])
        windows, labels = client.observations.labelled()
        report = client.train_observed(epochs=2)
        assert report.samples == len(windows) == 29
        assert max(np.bincount(labels)) - min(np.bincount(labels)) <= 1
        with pytest.raises(DataError, match="did you mean 'walk'"):
            client.observe(x[0], "wlak")
        with pytest.raises(DataError, match="one window at a time"):
            client.observe(x[:2])
        ended = theta_of(client)
    with opened(path, tmp_path / "b") as client:
        client.fit(windows, labels, epochs=2)
        assert (theta_of(client) == ended).all()


def test_training_that_diverges_keeps_the_state_before(tmp_path, path):
    x, y = toy_data()
    with opened(path, tmp_path) as client:
        before = theta_of(client)
        with pytest.raises(FedaliError, match=r"training diverged: .* odd values in the data"):
            client.fit(np.float32(1e37) * x, y)
        assert (theta_of(client) == before).all()
        assert np.isfinite(client.predict_proba(x)).all()
        client.fit(x, y)


def test_keys_are_asked_for_once(tmp_path):
    path = tmp_path / "m.fedali"
    create(tmp_path / "site")
    create(tmp_path / "other")
    write_full(path, key=load_private(tmp_path / "site.key"))
    with pytest.raises(BundleError, match="no key to verify it with"):
        EdgeClient.open(path, tmp_path / "s")
    with pytest.raises(BundleError, match="signature"):
        EdgeClient.open(path, tmp_path / "s", trusted_key=tmp_path / "other.pub")
    EdgeClient.open(path, tmp_path / "s", trusted_key=tmp_path / "site.pub").close()
    EdgeClient.open(path, tmp_path / "s").close()
    altered = bytearray(path.read_bytes())
    altered[len(altered) // 2] ^= 1
    (tmp_path / "altered.fedali").write_bytes(altered)
    with pytest.raises(BundleError):
        EdgeClient.open(tmp_path / "altered.fedali", tmp_path / "s")
    write_full(tmp_path / "unsigned.fedali")
    with pytest.raises(BundleError, match="not signed"):
        EdgeClient.open(tmp_path / "unsigned.fedali", tmp_path / "s")


def test_a_graph_that_fails_is_one_line(tmp_path):
    """What an old onnxruntime may do with a new graph; here with one that no version can run."""
    model = small_model()
    sizes = {"theta": [model.parameter_layout.size], "local_prototypes": [model.prototype_layout.size]}
    shapes = {**sizes, "x": ["batch", *SHAPE], "influence": []}
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Reshape", ["x", "shape"], ["logits"])],
        "infer",
        [onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()],
        [onnx.helper.make_tensor_value_info("logits", 1, ["batch", len(CLASSES)])],
        [onnx.helper.make_tensor("shape", 7, [2], [5, len(CLASSES)])],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    made = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    write_full(tmp_path / "m.fedali", infer=made.SerializeToString())
    with opened(tmp_path / "m.fedali", tmp_path) as client:
        with pytest.raises(FedaliError, match=r"onnxruntime .* fails at a graph of this bundle") as caught:
            client.predict(toy_data()[0])
        assert "\n" not in str(caught.value)
        client.fit(*toy_data(), epochs=1)


def test_what_cannot_be_done_is_said(tmp_path, path):
    x, y = toy_data()
    with opened(path, tmp_path) as client:
        with pytest.raises(SettingsError, match="epochs is 0"):
            client.fit(x, y, epochs=0)
        with pytest.raises(FedaliError, match="cannot adapt without labels"):
            client.adapt(x)
    with opened(path, tmp_path, read_only=True) as client:
        client.predict(x)
        for change in (
            lambda: client.fit(x, y),
            lambda: client.observe(x[0]),
            lambda: client.receive(x, x, 1, 0.0),
            client.save,
        ):
            with pytest.raises(FedaliError, match="read_only"):
                change()
        with pytest.raises(FedaliError, match="read_only"):
            client.train_observed()
    line = r"no provider 'CudaExecutionProvider'; did you mean"
    with (
        opened(path, tmp_path, provider="CudaExecutionProvider") as client,
        pytest.raises(SettingsError, match=line),
    ):
        client.predict(x)
