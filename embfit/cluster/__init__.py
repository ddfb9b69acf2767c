"""The same work on many machines: the cluster that a run has joined, and what is spread over its workers.

What is computed does not depend on where: work is cut into parts by the data alone, and a part gives the same bytes on
a worker as here, on the same kind of hardware and with as many threads.
"""

from embfit.cluster.connection import Cluster, current_cluster
from embfit.cluster.protocol import Do, Work
from embfit.cluster.ray_cluster import RayCluster

__all__ = ["Cluster", "Do", "RayCluster", "Work", "current_cluster"]
