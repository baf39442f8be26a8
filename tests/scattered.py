"""A cluster with each member on its own host, on a network that the test makes and disturbs."""

from dataclasses import replace

from tests.cluster_fixture import Cluster
from twstock.config import Address
from twstock.plan import member_names

HTTP_PORT, GRPC_PORT, INTERNAL_PORT = 8080, 50051, 50055


class ScatteredCluster(Cluster):
    """Like Cluster, but nothing restarts the members: the test has to start those it killed."""

    def __init__(self, directory, network, **options):
        self._network = network
        super().__init__(directory, **options)

    def plan(self, **options):
        """Every member on its own host."""
        config, at = super().plan(**options), self._network.addresses
        return replace(
            config,
            fronts=tuple(
                replace(
                    front,
                    http=Address(at[f"front-{front.id}"], HTTP_PORT),
                    internal=Address(at[f"front-{front.id}"], INTERNAL_PORT),
                )
                for front in config.fronts
            ),
            catalogs=tuple(
                replace(r, grpc=Address(at[f"catalog-{r.id}"], GRPC_PORT)) for r in config.catalogs
            ),
            orders=tuple(
                replace(r, grpc=Address(at[f"order-{r.id}"], GRPC_PORT)) for r in config.orders
            ),
        )

    def on(self, name):
        """The command prefix that runs a command on the member's host."""
        return self._network.on(name)

    def up(self):
        """Start every member and wait until all serve."""
        for name in member_names(self.config):
            (self.directory / name).mkdir()
            self.start(name)
        self.await_serving()
