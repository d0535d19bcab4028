"""Training the head alone, and moving prototypes without labels, against torch; bundles of the real exporter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedali.bundle.manifest import BundleNormalisation, Component
from fedali.data.normalisation import Normalisation
from fedali.errors import FedaliError
from fedali.methods import build_method
from fedali.optimizers.rules import Adam
from fedali.step import Batch, Hyper, Shared, State, make_predict, make_step
from fedali_client import EdgeClient
from fedali_server.export.bundle_export import export_bundle
from fedali_server.export.source import Source, Start
from tests.bundles import ALP, BATCH, CLASSES, SHAPE, small_model, toy_data

MEAN, STD = np.float32([0.1, 0.2, 0.3]), np.float32([1.0, 2.0, 0.5])
SCALE = Normalisation(MEAN, STD)


def _source(method="fedali-paper", alp=ALP):
    model = small_model(alp)
    random = np.random.default_rng(0)
    local, shared = random.standard_normal((2, model.prototype_layout.size)).astype(np.float32)
    theta = model.theta().numpy()
    return Source(
        name="toy",
        model=model,
        component=Component("cnn1d", {"channels": [4, 8], "kernel": 3, "hidden": 5}, {"num_prototypes": [4]}),
        method=build_method(method),
        optimizer=Adam(learning_rate=0.01),
        start=Start(theta, local, theta, shared),
        round=2,
        decay=0.9,
        normalisation=BundleNormalisation("global", MEAN, STD),
        input_shape=SHAPE,
        classes=CLASSES,
    )


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    for mode in ("head", "full"):
        export_bundle(folder / f"{mode}.fedali", _source("fedali-head"), mode=mode, batch=BATCH)
    return {mode: folder / f"{mode}.fedali" for mode in ("head", "full")}


def opened(path, folder, **options):
    return EdgeClient.open(path, folder, allow_unsigned=True, **options)


def _torch_head(x, y, epochs):
    """The head of the model trained by torch's own Adam on embeddings of its frozen body."""
    source = _source()
    model = source.model
    head, seen = model.head, []
    hook = head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    theta, local = torch.from_numpy(source.start.theta), torch.from_numpy(source.start.local_prototypes)
    make_predict(model, matcher="cosine")(theta, local, torch.from_numpy(SCALE(x)), 0.2)
    hook.remove()
    (embeddings,) = seen
    optimizer = torch.optim.Adam(head.parameters(), lr=0.01)
    for epoch in range(epochs):
        order = np.random.default_rng(np.random.SeedSequence([0, 1, epoch])).permutation(len(x))
        for start in range(0, len(x), BATCH):
            chosen = order[start : start + BATCH]
            loss = torch.nn.functional.cross_entropy(head(embeddings[chosen]), torch.from_numpy(y[chosen]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.theta().numpy(), head(embeddings).softmax(-1).detach().numpy()


def test_the_head_is_trained_as_torch_trains_it(tmp_path, paths):
    x, y = toy_data(45)
    with opened(paths["head"], tmp_path) as client:
        start, prototypes = client._state.theta(), client._state.local_prototypes.copy()
        client.fit(x, y, epochs=10)
        theta, found = client._state.theta(), client.predict_proba(x)
        trained = client.manifest.trained
        assert (client._state.local_prototypes == prototypes).all()
    expected, probabilities = _torch_head(x, y, 10)
    moved = np.linalg.norm(theta[trained] - expected[trained]) / np.linalg.norm(expected - start)
    assert moved <= 1e-3
    np.testing.assert_allclose(found, probabilities, atol=1e-4)
    body = np.delete(np.arange(len(theta)), np.r_[trained])
    assert (theta[body] == start[body]).all()


def test_embeddings_are_computed_once_for_each_body(tmp_path, paths):
    x, y = toy_data(45)

    def files(client):
        return {path.name: path.stat().st_ino for path in client._state.folder.glob("embeddings-*")}

    with opened(paths["head"], tmp_path) as client:
        client.fit(x, y, epochs=2)
        first = files(client)
        assert len(first) == 1
        client.fit(x, y, epochs=3)
        assert files(client) == first
        client.fit(x + 1, y)
        other = files(client)
        assert len(other) == 1
        assert other.keys() != first.keys()
        client.fit(x, y)
        assert files(client).keys() == first.keys()
        size = client.manifest.layouts.parameters.size - client.manifest.layouts.trained.size
        sent = np.random.default_rng(3).standard_normal(size).astype(np.float32)
        client.receive(sent, client._state.shared_prototypes.copy(), 5, 0.2)
        head = client._state.trained.copy()
        client.fit(x, y)
        assert files(client).keys() != first.keys()
        assert (client._state.trained != head).any()
        update = client.update()
        assert (update.theta == sent).all()  # the head is personal, and the body is not trained here


def test_broken_embeddings_are_computed_again(tmp_path, paths):
    x, y = toy_data(45)
    ends = []
    for name in ("a", "b"):
        with opened(paths["head"], tmp_path / name) as client:
            client.fit(x, y, epochs=2)
            if name == "b":
                (path,) = client._state.folder.glob("embeddings-*")
                path.write_bytes(path.read_bytes()[:-9])
            client.fit(x, y, epochs=2)
            ends.append(client._state.theta())
    assert (ends[0] == ends[1]).all()


class StoppedError(Exception):
    pass


def test_an_interrupted_fit_of_the_head_goes_on(tmp_path, paths):
    x, y = toy_data(45)

    def stop(now):
        if now.step == 9:
            raise StoppedError

    with opened(paths["head"], tmp_path / "a") as client:
        client.fit(x, y, epochs=4)
        expected = client._state.theta()
    with opened(paths["head"], tmp_path / "b") as client, pytest.raises(StoppedError):
        client.fit(x, y, epochs=4, progress=stop)
    with opened(paths["head"], tmp_path / "b") as client:
        assert client.fit(x, y, epochs=4).resumed_at == 9
        assert (client._state.theta() == expected).all()


def test_prototypes_follow_samples_without_labels(tmp_path, paths):
    x, y = toy_data(2 * BATCH)
    source = _source("fedali-head")
    with opened(paths["full"], tmp_path) as client:
        before = client._state.theta()
        client.fit(x, y, epochs=1)
        trained = client._state.theta()
        local = client._state.local_prototypes.copy()
        assert client.adapt(x[:5]) == 5
        moved = client._state.local_prototypes.copy()
        assert (client._state.theta() == trained).all()
    assert (before != trained).any()
    step = make_step(source.model, source.method, source.optimizer)
    theta = torch.from_numpy(trained)
    filled = np.resize(np.random.default_rng(np.random.SeedSequence([0, 0, 0])).permutation(5), BATCH)
    weights = torch.tensor([1.0] * 5 + [0.0] * (BATCH - 5))
    batch = Batch(torch.from_numpy(SCALE(x[filled])), torch.zeros(BATCH, dtype=torch.int64), weights)
    shared = Shared(theta, torch.from_numpy(source.start.shared_prototypes))
    hyper = Hyper(*map(torch.tensor, (0.01, 1.0, 0.2, 0.9)))
    state = State(theta, *source.optimizer.initial(theta), torch.from_numpy(local))
    expected = step(state, batch, shared, hyper)[0].local_prototypes.numpy()
    assert np.linalg.norm(moved - expected) <= 1e-5 * np.linalg.norm(expected - local)
    with opened(paths["full"], tmp_path) as client:
        assert (client._state.local_prototypes == moved).all()
    with opened(paths["head"], tmp_path) as client, pytest.raises(FedaliError, match="mode full"):
        client.adapt(x)


def test_one_sample_is_predicted_as_in_a_crowd(tmp_path, paths):
    x, _ = toy_data(40)
    for path in paths.values():
        with opened(path, tmp_path) as client:
            many = client.predict_proba(x)
            np.testing.assert_allclose(client.predict_proba(x[3]), many[3:4], atol=1e-6)
            assert len(many) == 40
