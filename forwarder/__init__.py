"""A daemon that receives statsd and Graphite lines, aggregates them, and delivers the results through metricslib."""
