"""Programs to try metricslib with."""
