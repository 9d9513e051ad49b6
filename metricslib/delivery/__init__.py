"""Bytes to a place, or kept: destinations, the spool where batches wait, and the courier that brings them."""

from .batch import Batch, Deadline, Undelivered
from .cluster import open_destinations
from .courier import Courier
from .couriers import Couriers
from .destination import Destination, Options
from .destinations import open_destination
from .memory_spool import MemorySpool
from .spool import Holdings, Spool
from .status import NodeStatus, Status
from .urls import several, split_urls

__all__ = [
    "Batch",
    "Courier",
    "Couriers",
    "Deadline",
    "Destination",
    "Holdings",
    "MemorySpool",
    "NodeStatus",
    "Options",
    "Spool",
    "Status",
    "Undelivered",
    "open_destination",
    "open_destinations",
    "several",
    "split_urls",
]
