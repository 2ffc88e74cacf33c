"""Ray Serve's request router for the replicas of the model: `ray_affinity.preferred`, asked in each gateway.

Ray Serve imports `AffinityRouter` by its path, also in processes that it starts. The class is made when it is first
asked for, because its base is Ray's.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from ..distributed.ray_cluster import import_serve
from .ray_affinity import preferred

PATH = f"{__name__}:AffinityRouter"


def __getattr__(name: str) -> Any:
    if name == "AffinityRouter":
        return _make_router()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def _make_router() -> type:
    base: Any = import_serve().request_router.RequestRouter

    class AffinityRouter(base):
        """Sends a request to the replica that its key, the first argument of the call, prefers."""

        async def choose_replicas(self, candidate_replicas: Sequence[Any], pending_request: Any = None) -> list[Any]:
            """Candidates in the order in which they should be asked, each alone in its rank.

            Ray asks the next one where a replica is full or does not say how busy it is.
            """
            key = pending_request.args[0] if pending_request is not None and pending_request.args else ""
            if not key:
                return [list(candidate_replicas)]  # Ray takes the least busy one of a rank
            by_name = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
            loads = {
                name: self.replica_queue_len_cache.get(replica.replica_id) or 0 for name, replica in by_name.items()
            }
            return [[by_name[name]] for name in preferred(key, loads)]

    AffinityRouter.__module__, AffinityRouter.__qualname__ = __name__, "AffinityRouter"  # as it is imported
    return AffinityRouter
