"""The site's own service, over its Unix socket: ``fedali.v1.Relay``."""

from __future__ import annotations

from fedali.errors import BundleError, KitError
from fedali.v1 import relay_pb2
from fedali_server.gateway.gateway import Gateway
from fedali_server.gateway.refusal import malformed
from fedali_server.gateway.rpc import Context, Method


class RelayService:
    """Answers the site's node; each method takes the request and gRPC's context, and raises ``Refusal``."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    @property
    def methods(self) -> dict[str, Method]:
        """By the names of the protocol."""
        return {
            "HasBundle": self.has_bundle,
            "PutBundle": self.put_bundle,
            "Round": self.round,
            "Status": self.status,
            "Revoke": self.revoke,
        }

    async def has_bundle(
        self, request: relay_pb2.HasBundleRequest, context: Context
    ) -> relay_pb2.HasBundleReply:
        """Whether a bundle is here."""
        return relay_pb2.HasBundleReply(held=self._gateway.bundles.held(request.sha256))

    async def put_bundle(
        self, request: relay_pb2.PutBundleRequest, context: Context
    ) -> relay_pb2.PutBundleReply:
        """Keep a bundle."""
        try:
            await self._gateway.work(lambda: self._gateway.bundles.put(request.bundle))
        except BundleError as error:
            raise malformed(str(error)) from None
        return relay_pb2.PutBundleReply()

    async def round(self, request: relay_pb2.RoundOrder, context: Context) -> bytes:
        """Do a round."""
        return await self._gateway.do(request)

    async def status(self, request: relay_pb2.StatusRequest, context: Context) -> relay_pb2.SiteStatus:
        """Who is there."""
        gateway = self._gateway
        found = relay_pb2.SiteStatus(federation=gateway.kit.federation, site=gateway.kit.name)
        if gateway.open_round is not None:
            key = gateway.open_round.key
            found.run, found.round, found.kind = key.run, key.round, key.kind
            found.seconds_left = gateway.seconds_left(gateway.open_round)
        for device in gateway.devices.values():
            found.devices.append(device.status(revoked=gateway.roster.revoked(device.entry)))
        return found

    async def revoke(self, request: relay_pb2.RevokeRequest, context: Context) -> relay_pb2.RevokeReply:
        """Put a newer list of revoked certificates in force."""
        try:
            number = self._gateway.roster.replace(request.list, request.signature)
        except KitError as error:
            raise malformed(str(error)) from None
        self._gateway.tell()
        return relay_pb2.RevokeReply(number=number)
