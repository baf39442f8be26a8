"""Backups: taking one from a running cluster, and making a new cluster from one."""
