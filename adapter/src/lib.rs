//! Rooms, fan-out and the cluster.
