"""From finished stages to table, curves and figures."""
