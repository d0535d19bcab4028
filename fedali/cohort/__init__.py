"""The trainer of many clients, and what they keep on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedali.support.lazy import lazily

if TYPE_CHECKING:
    from fedali.cohort.contract import RoundSettings as RoundSettings
    from fedali.cohort.contract import Site as Site
    from fedali.cohort.contract import SiteReply as SiteReply
    from fedali.cohort.samples import Cohort as Cohort
    from fedali.cohort.site import CohortSettings as CohortSettings
    from fedali.cohort.site import CohortSite as CohortSite
    from fedali.cohort.store import ClientStore as ClientStore

_HOMES = {
    "Cohort": "samples",
    "CohortSettings": "site",
    "CohortSite": "site",
    "ClientStore": "store",
    "Site": "contract",
    "SiteReply": "contract",
    "RoundSettings": "contract",
}

__all__ = ["ClientStore", "Cohort", "CohortSettings", "CohortSite", "RoundSettings", "Site", "SiteReply"]
if not TYPE_CHECKING:
    __getattr__ = lazily(__name__, _HOMES)
