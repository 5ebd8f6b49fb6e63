"""How good predictions are: metrics, intervals, baselines, reports."""
