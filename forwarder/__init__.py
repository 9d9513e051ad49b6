"""A daemon that hears statsd and Graphite lines, and ships what they say through metricslib."""
