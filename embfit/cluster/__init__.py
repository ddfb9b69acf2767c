"""Distributes work over the workers of a cluster.

Results do not depend on where they are computed: only the data decide how work is cut into parts, and a part gives the
same bytes on any machine of the same hardware with the same number of threads.
"""

from embfit.cluster.connection import Cluster, current_cluster
from embfit.cluster.protocol import Do, Work
from embfit.cluster.ray_cluster import RayCluster

__all__ = ["Cluster", "Do", "RayCluster", "Work", "current_cluster"]
