"""A small web shop that measures itself."""
