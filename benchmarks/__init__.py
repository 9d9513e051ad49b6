"""What it costs to measure, against other libraries and against doing nothing, in one run."""
