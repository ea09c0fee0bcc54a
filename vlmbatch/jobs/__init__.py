"""The job queue in Redis: work that outlives its request, for workers on any number of machines."""
