"""``adapt``: any ``torch.nn.Module`` as a model that methods, engines and devices take."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from fedali.errors import SettingsError, did_you_mean
from fedali.models.base import ALPSettings
from fedali.models.own.adapters import Adapters, put_adapters
from fedali.models.own.layers import (
    BatchNorm,
    are_trained,
    batch_norms,
    make_plain,
    replace,
    replace_batch_norms,
    spatial,
)
from fedali.models.own.model import Adapted
from fedali.models.own.places import before_head, find_places
from fedali.models.own.plain import PlainFunctions
from fedali.models.own.report import Report
from fedali.models.own.trainable import restrict
from fedali.models.own.trial import Trial, check_gradient, check_pure, depends_on_values, run, samples

_CLOSE = 1e-4  # of outputs' scale
_NORMS_WHY = {
    True: "as it was: its statistics were trained",
    False: "by groups: statistics of clients that differ fit none of them, and are no parameters",
}


@dataclass(frozen=True, eq=False)
class Adaptation:
    """A network and how it becomes a model; what ``fedali.adapt`` gives, and wherever a model is asked for is taken.

    Args:
        net: is copied for each model that is made, and never changed.
        head: path of the head; None: the linear layer that is called last.
        embedding: path of a module whose output is what the head takes: checked; None does not say.
        alp_at: paths of modules behind which ALP layers sit; without, one sits before the head.
        trainable: which parameters train, see ``fedali.models.own.trainable``; without, all, or adapters and head.
        batchnorm: ``"groups"``: group normalisation in its place; ``"frozen"``: by its statistics as they are; None: frozen
            where they were trained, else groups.
        adapters: low-rank ones beside linear layers.
    """

    net: nn.Module
    head: str | None = None
    embedding: str | None = None
    alp_at: tuple[str, ...] = ()
    trainable: tuple[str, ...] = ()
    batchnorm: BatchNorm | None = None
    adapters: Adapters | None = None

    @property
    def name(self) -> str:
        """The network's class."""
        return type(self.net).__name__

    def build(
        self,
        input_shape: Sequence[int],
        classes: int,
        alp: ALPSettings | None = None,
        *,
        seed: int = 0,
        tokens: bool = False,
    ) -> Adapted:
        """The model for samples of a shape.

        Args:
            input_shape: of one sample.
            classes: how many; a head for another number is made anew.
            alp: settings of the ALP layers, None for none.
            seed: of what is made anew: a head, ALP layers.
            tokens: whether samples are ids of tokens [tokens].

        Raises ``SettingsError`` where the network cannot be a model, and says why.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._build(tuple(input_shape), classes, alp, tokens)

    def report(self, input_shape: Sequence[int], classes: int, alp: ALPSettings | None = None) -> Report:
        """What is found of the network, and what is done to it; with ALP layers where ``alp_at`` says so."""
        return self.build(input_shape, classes, ALPSettings() if self.alp_at and not alp else alp).report

    def _build(
        self, input_shape: tuple[int, ...], classes: int, alp: ALPSettings | None, tokens: bool
    ) -> Adapted:
        net, x, name = copy.deepcopy(self.net), samples(input_shape, tokens=tokens), self.name
        net.requires_grad_(True)
        changes = [text for kind, count in make_plain(net).items() if count for text in (_said(kind, count),)]
        changes += self._without_batch_norm(net, x)
        trial = run(net, x, name)
        check_pure(net, x, name)
        unused = check_gradient(net, x, name)
        path = self._head_path(net, trial)
        head = net.get_submodule(path)
        changes += self._with_adapters(net, x, path)
        source = before_head(trial, path)
        replace(net, path, nn.Identity())
        embedding = self._check_embedding(net, head, path, x, trial.output)
        found, anew = _for_classes(head, classes, changes, path)
        places = find_places(trial, self.alp_at, path, embedding.shape[1])
        layers = [] if alp is None else alp.layers(tuple(place.dim for place in places))
        loop_only = depends_on_values(net, x)
        remarks = (
            [f"engine loop alone runs it: {loop_only} makes a shape or a branch of values"]
            if loop_only
            else []
        )
        if unused:
            remarks.append(
                f"the output does not depend on {', '.join(unused[:3])}{' ...' if unused[3:] else ''}"
            )
        model = Adapted(
            net,
            found,
            layers,
            places if layers else [],
            plain=trial.plain,
            loop_only=f"makes a shape or a branch of values by {loop_only}" if loop_only else "",
        )
        every = sum(p.numel() for p in model.parameters())
        trainable = self.trainable or (("adapters", "head") if self.adapters else ("all",))
        restrict(model, trainable, {n: _called(n, path) for n, _ in model.named_parameters()})
        linear = [m for m in found.modules() if isinstance(m, nn.Linear)]
        model._report = Report(
            name,
            every,
            sum(p.numel() for p in model.parameters()),
            f"{path}: {linear[0].in_features} -> {linear[-1].out_features}{anew}",
            f"{embedding.shape[1]}, from {source}",
            tuple(place.said for place in places) if layers else (),
            tuple(changes),
            tuple(remarks),
        )
        return model

    def _with_adapters(self, net: nn.Module, x: Tensor, head: str) -> list[str]:
        """Put adapters into the network: what was done."""
        if self.adapters is None:
            return []
        without = [path for path, _ in net.named_modules() if path == head or path.startswith(f"{head}.")]
        paths = put_adapters(net, self.adapters, without)
        unused = [name for name in check_gradient(net, x, self.name) if name.endswith(".lora_a")]
        if unused:
            raise SettingsError(
                f"an adapter at {unused[0].removesuffix('.lora_a')!r} has no effect: {self.name} takes the layer's weights without calling it"
            )
        count = len(paths)
        return [f"low-rank adapters, {count} layer{'s' * (count > 1)}: of rank {self.adapters.rank}"]

    def _without_batch_norm(self, net: nn.Module, x: Tensor) -> list[str]:
        """Replace batch normalisation: what was done."""
        norms = batch_norms(net)
        if not norms:
            return []
        trained = are_trained(norms)
        how = self.batchnorm or ("frozen" if trained else "groups")
        trial = run(net, x, self.name)
        replace_batch_norms(net, how, {c.path: spatial(c.takes) for c in trial.calls if c.takes is not None})
        why = _NORMS_WHY[how == "frozen"]
        if how == "groups" and trained:
            why = "by groups, as asked for: what it was trained to with its statistics is lost"
        if how == "frozen" and not trained:
            why = "as it was, by statistics that were never trained"
        return [f"batch normalisation, {len(norms)} layer{'s' * (len(norms) > 1)}: {why}"]

    def _head_path(self, net: nn.Module, trial: Trial) -> str:
        name = self.name
        linear = [call.path for call in trial.calls if isinstance(call.module, nn.Linear)]
        path = self.head
        if path is None:
            if not linear:
                raise SettingsError(f"{name} calls no linear layer that could be its head: name one by head=")
            path = linear[-1]
        try:
            head = net.get_submodule(path)
        except AttributeError:
            known = [key for key, _ in net.named_modules() if key]
            raise SettingsError(
                f"{name} has no module {path!r} to be its head; {did_you_mean(path, known)}"
            ) from None
        if not path:
            raise SettingsError(f"{name} is a head alone: put it into a Sequential behind a Flatten")
        if not any(isinstance(module, nn.Linear) for module in head.modules()):
            raise SettingsError(
                f"head {path!r} of {name} has no linear layer; the last one called is {linear[-1:]}"
            )
        calls = len(trial.of(path))
        if calls != 1:
            raise SettingsError(f"head {path!r} of {name} is called {calls} times, and has to be called once")
        return path

    def _check_embedding(
        self, net: nn.Module, head: nn.Module, path: str, x: Tensor, output: Tensor
    ) -> Tensor:
        """What the network without its head gives: it has to be what the head takes, and the head the end."""
        name = self.name
        where = f"{name} without its head {path!r}"
        embedding = run(net, x, where).output
        if embedding.dim() != 2:
            raise SettingsError(
                f"{where} gives {tuple(embedding.shape)}, and has to give embeddings [B, d]: pool before the head, or "
                "name a later one by head="
            )
        with torch.no_grad():
            logits = head(embedding)
        if logits.shape != output.shape or (logits - output).abs().max() > _CLOSE * output.abs().max():
            raise SettingsError(
                f"{name} does more behind its head {path!r}: let it end with the head's logits, the loss has the softmax"
            )
        if self.embedding is not None:
            self._check_named(net, x, embedding)
        return embedding

    def _check_named(self, net: nn.Module, x: Tensor, embedding: Tensor) -> None:
        assert self.embedding is not None
        known = [key for key, _ in net.named_modules() if key]
        if self.embedding not in known:
            raise SettingsError(
                f"{self.name} has no module {self.embedding!r} to give its embedding; {did_you_mean(self.embedding, known)}"
            )
        seen: list[Any] = []
        handle = net.get_submodule(self.embedding).register_forward_hook(lambda *given: seen.append(given[2]))
        with torch.no_grad(), PlainFunctions():
            net(x)
        handle.remove()
        given = seen[-1] if seen else None
        if not isinstance(given, Tensor) or not torch.equal(given.flatten(1), embedding):
            raise SettingsError(
                f"embedding {self.embedding!r} is not what the head takes: the embedding is the head's input; name another head, "
                "or leave embedding away"
            )


def adapt(
    net: nn.Module,
    *,
    head: str | None = None,
    embedding: str | None = None,
    alp_at: str | Sequence[str] = (),
    trainable: str | Sequence[str] = (),
    batchnorm: BatchNorm | None = None,
    adapters: Mapping[str, Any] | None = None,
) -> Adaptation:
    """Any network as a model: ``adapt(net).build(input_shape, classes)``; arguments are those of ``Adaptation``.

    The network runs as after ``eval()``. It gives logits [B, classes] of samples [B, ...]; what stands in the way is said
    when the model is made.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 1000))
    >>> print(adapt(net, trainable="head").report((3, 4), 5))
    Sequential: 149 parameters, 45 train and travel
      head       3: 8 -> 5, made anew: it had 1000 outputs
      embedding  8, from 2 (ReLU)

    Raises ``SettingsError`` for what is no network, or a setting that does not exist.
    """
    if not isinstance(net, nn.Module):
        raise SettingsError(f"adapt takes a torch.nn.Module, not a {type(net).__name__}")
    if batchnorm is not None and batchnorm not in get_args(BatchNorm):
        raise SettingsError(
            f"batchnorm is {batchnorm!r}; {did_you_mean(str(batchnorm), get_args(BatchNorm))}"
        )
    at, globs = _strings("alp_at", alp_at), _strings("trainable", trainable)
    return Adaptation(net, head, embedding, at, globs, batchnorm, Adapters.of(adapters) if adapters else None)


def adapt_with(net: nn.Module, settings: Mapping[str, Any]) -> Adaptation:
    """``adapt`` with settings from a file. Raises ``SettingsError`` for one that does not exist."""
    for key in settings:
        if key not in SETTINGS:
            raise SettingsError(f"model.adapt has no setting {key!r}; {did_you_mean(key, SETTINGS)}")
    for key in ("head", "embedding"):
        if not isinstance(settings.get(key, ""), str):
            raise SettingsError(f"model.adapt.{key} is {settings[key]!r}, and has to be a module's path")
    return adapt(net, **settings)


SETTINGS = ("head", "embedding", "alp_at", "trainable", "batchnorm", "adapters")


def _strings(name: str, given: str | Sequence[str]) -> tuple[str, ...]:
    found = (given,) if isinstance(given, str) else tuple(given)
    if not all(isinstance(one, str) for one in found):
        raise SettingsError(f"{name} is {given!r}, and has to be a list of names")
    return found


def _for_classes(head: nn.Module, classes: int, changes: list[str], path: str) -> tuple[nn.Module, str]:
    """The head, and what is said of it: its last layer is made anew where it has another number of outputs."""
    linear = [(key, module) for key, module in head.named_modules() if isinstance(module, nn.Linear)]
    key, last = linear[-1]
    if last.out_features == classes:
        return head, ""
    new = nn.Linear(last.in_features, classes, bias=last.bias is not None)
    if key:
        replace(head, key, new)
    return head if key else new, f", made anew: it had {last.out_features} outputs"


def _called(name: str, head: str) -> str:
    """What somebody calls a parameter of the model."""
    if name.startswith("head."):
        return f"{head}.{name.removeprefix('head.')}"
    return name.removeprefix("body.")


def _said(kind: str, count: int) -> str:
    layers = f"{count} layer{'s' * (count > 1)}"
    return {
        "dropout": f"dropout, {layers}: off, so that a step follows from its samples alone",
        "recurrent": f"recurrent, {layers}: unrolled over time",
        "in place": f"activations in place, {layers}: as new values",
    }[kind]
