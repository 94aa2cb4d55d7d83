"""Depth against ranking quality as one HTML page that answers to the mouse and needs no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from orchestrator.report.curves import CurvePoint
from orchestrator.report.figure_style import (
    BASELINE,
    GRID,
    INK,
    MUTED,
    Lines,
    Style,
    axis_label,
    band,
    styles_of,
    ticks,
)


def save_page(drawn: Mapping[str, Lines], frame: pd.DataFrame, path: Path, title: str, caption: str) -> None:
    """Writes one panel per metric; pointing at a depth shows every row there, with intervals, sizes and speeds."""
    panels = [lines for lines in drawn.values() if lines]
    figure = make_subplots(rows=1, cols=len(panels), horizontal_spacing=0.09)
    for column, lines in enumerate(panels, start=1):
        styles = styles_of(list(lines))
        for row, points in lines.items():
            for trace in _traces(row, points, styles[row], frame, show_legend=column == 1):
                figure.add_trace(trace, row=1, col=column)
        depths = sorted({p.num_layers for points in lines.values() for p in points})
        figure.update_xaxes(title="decoder layers", tickvals=ticks(depths), row=1, col=column)
        figure.update_yaxes(title=axis_label(lines), tickformat=".3f", row=1, col=column)
    subtitle = f"<br><span style='font-size:13px;color:{MUTED}'>{_escaped(caption)}</span>"
    figure.update_layout(
        title={"text": f"<b>{_escaped(title)}</b>{subtitle}", "x": 0.02, "xanchor": "left"},
        template="plotly_white",
        font={"family": "Inter, Segoe UI, Helvetica, Arial, sans-serif", "color": INK},
        legend={"orientation": "h", "y": -0.2, "x": 0},
        margin={"t": 100, "r": 30},
        hovermode="x unified",
    )
    figure.update_xaxes(showgrid=False, linecolor=BASELINE, zeroline=False)
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    # Without the library in the page it would be fetched from a server, and the page would be empty offline.
    # A fixed name, so that the same rows give the same file.
    figure.write_html(path, include_plotlyjs=True, full_html=True, config={"displaylogo": False}, div_id="curves")


def _traces(
    row: str, points: Sequence[CurvePoint], style: Style, frame: pd.DataFrame, show_legend: bool
) -> list[go.Scatter]:
    group = {"legendgroup": row, "name": _escaped(row)}
    depths, low, high = band(points)
    traces = []
    if depths:
        fill = {"fill": "toself", "fillcolor": style.color, "opacity": 0.13, "line": {"width": 0}}
        traces.append(
            go.Scatter(x=depths + depths[::-1], y=high + low[::-1], hoverinfo="skip", showlegend=False, **fill, **group)
        )
    traces.append(
        go.Scatter(
            x=[p.num_layers for p in points],
            y=[p.mean for p in points],
            mode="lines" if style.dash == "dash" else "lines+markers",
            line={"color": style.color, "width": 2.5, "dash": style.dash},
            marker={"symbol": style.symbol, "size": 9, "line": {"color": "white", "width": 1.4}},
            customdata=[_tooltip(point, frame) for point in points],
            hovertemplate="%{y:.4f}%{customdata}",
            showlegend=show_legend,
            **group,
        )
    )
    return traces


def _tooltip(point: CurvePoint, frame: pd.DataFrame) -> str:
    parts = []
    if point.sd is not None:
        parts.append(f"sd {point.sd:.4f} over {point.num_seeds} seeds")
    if point.low is not None and point.high is not None:
        parts.append(f"95 % in [{point.low:.4f}, {point.high:.4f}]")
    same = frame[(frame["row"] == point.row) & (frame["num_layers"] == point.num_layers)]
    size, speed = same["params_total"].astype("Float64").mean(), same["users_per_second"].astype("Float64").mean()
    parts += [] if pd.isna(size) else [f"{size / 1e6:.1f} M parameters"]
    parts += [] if pd.isna(speed) else [f"{speed:,.0f} users/s"]
    return "".join(f" · {part}" for part in parts)


def _escaped(text: str) -> str:
    """Titles and rows hold names that a user chose, and plotly reads its texts as HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
