"""Kept runs: the sets that they belong to, groups of seeds, statistics, table formats and plot styles."""
