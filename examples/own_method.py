"""A method of your own: FedAvg whose clients are pulled towards the server's model.

python examples/own_method.py
fedali simulate digits --set methods=fedavg,own_method:Pulled            in this folder
"""

from dataclasses import dataclass

from fedali import Method, simulate


@dataclass(frozen=True)
class Pulled(Method):
    """Adds half of ``strength`` times the squared distance to what a client minimises."""

    strength: float = 0.1

    def objective(self, step):
        """The loss, and the pull."""
        pairs = ((own, step.server.model[name]) for name, own in step.own.model.items())
        return step.loss() + self.strength / 2 * sum(((own - server) ** 2).sum() for own, server in pairs)


def main(**settings):
    """Compare it with FedAvg."""
    methods = ["fedavg", Pulled(), Pulled(strength=1.0)]
    return simulate("digits", methods=methods, **settings)


if __name__ == "__main__":
    print(main())
