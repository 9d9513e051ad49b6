"""Bytes to a place, or kept: destinations, the spool where batches wait, and the courier that brings them."""

from .cluster import open_destinations
from .courier import Courier
from .couriers import Couriers
from .deadline import Deadline
from .destination import Destination, Options, Undelivered
from .destinations import open_destination
from .memory_spool import MemorySpool
from .spool import Batch, Holdings, Spool
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
