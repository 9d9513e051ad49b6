"""Counting log records."""

import logging

from metricslib.integrations import logging as counted


def test_records_are_counted_by_level_and_logger(registry, measured):
    """Once each, also of loggers below; what the level or a filter keeps away does not count."""
    logger = logging.getLogger("shop")
    logger.setLevel(logging.INFO)
    handler = counted.instrument("shop", instruments=registry)
    try:
        assert counted.instrument(logger, instruments=registry) is handler
        logger.warning("a")
        logging.getLogger("shop.cart").error("b")
        logging.getLogger("shop.cart").error("c")
        logger.debug("too small")
        handler.addFilter(lambda record: record.levelno >= logging.ERROR)
        logger.warning("kept away")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert measured() == {
        "log.records;level=WARNING;logger=shop": 1,
        "log.records;level=ERROR;logger=shop.cart": 2,
    }


def test_counting_takes_no_lock(registry):
    """So that a record that is logged in a signal handler cannot wait for itself."""
    logger = logging.getLogger("shop.lock")
    handler = counted.instrument(logger, instruments=registry)
    assert handler.lock is None
    logger.removeHandler(handler)
