"""Bytes to a place, or kept: destinations, the queue where batches wait, and the sender that delivers them."""

from .batch import Batch, Deadline, Undelivered
from .cluster import open_destinations
from .destination import Destination, NodeStatus, Options
from .destinations import open_destination
from .dispatcher import Dispatcher, Puts
from .queue import Queue, QueueStats
from .sender import Sender, SenderStatus
from .urls import several, split_urls

__all__ = [
    "Batch",
    "Deadline",
    "Destination",
    "Dispatcher",
    "NodeStatus",
    "Options",
    "Puts",
    "Queue",
    "QueueStats",
    "Sender",
    "SenderStatus",
    "Undelivered",
    "open_destination",
    "open_destinations",
    "several",
    "split_urls",
]
