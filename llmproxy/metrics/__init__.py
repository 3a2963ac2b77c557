"""Counts what the proxy does, cheaply, and shows it to Prometheus and to people."""

from llmproxy.metrics.counting import Metrics, ProxyMetrics
from llmproxy.metrics.exposition import render, to_json

__all__ = ["Metrics", "ProxyMetrics", "render", "to_json"]
