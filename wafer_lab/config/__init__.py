"""Configs: read signatures, check every value, explain mistakes, build objects. See docs/configuration.md."""
