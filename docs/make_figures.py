"""Draws the figures of explanation.md: `python docs/make_figures.py [FOLDER]`.

Every value is a gradient of `slmrec_core.losses`, taken by autograd; the
teacher's state is (1, 0).
"""

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from orchestrator.report.figure_style import BASELINE, GRID, INK, MUTED
from slmrec_core.losses import feature_cosine_loss, feature_norm_loss

Loss = Callable[[Tensor, Tensor], Tensor]

COSINE, NORM, DISTANCE = "#d55e00", "#0072b2", "#009e73"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
}


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The norm term of `norm_squared: false`."""
    return feature_norm_loss(student, teacher, squared=False)


def gradients(loss: Loss, states: Tensor) -> Tensor:
    """Gradient at each state of the plane, [state, 2], as if it were alone."""
    student = states.clone().requires_grad_()
    teacher = torch.tensor([1.0, 0.0]).expand_as(student)
    # A loss is a mean over states; times their number it is their sum.
    (gradient,) = torch.autograd.grad(
        loss(student[None], teacher[None]) * len(states), student
    )
    return gradient


def at(angles: Tensor, lengths: Tensor) -> Tensor:
    """States at angles from the teacher, radians, and lengths."""
    return torch.stack([lengths * angles.cos(), lengths * angles.sin()], dim=1)


def draw_directions(file: Path) -> None:
    """Where each term moves a state of the plane."""
    figure = Figure(figsize=(10, 4.9), dpi=130, facecolor="white")
    FigureCanvasAgg(figure)
    angles = torch.linspace(-torch.pi, torch.pi, 25)[:-1]
    lengths = torch.tensor([0.7, 1.4, 2.1])
    states = at(*torch.cartesian_prod(angles, lengths).T)
    terms = (
        ("cosine: turns", feature_cosine_loss, COSINE, 3.0),
        ("norm: pulls", feature_norm_loss, NORM, 9.0),
    )
    for place, (title, loss, color, scale) in enumerate(terms):
        axes = figure.add_axes((0.05 + 0.48 * place, 0.09, 0.44, 0.8))
        move = -gradients(loss, states)
        axes.quiver(
            *states.T,
            *move.T,
            color=color,
            angles="xy",
            scale_units="xy",
            scale=scale,
            width=0.005,
        )
        axes.plot([0, 1], [0, 0], color=INK, linewidth=1.5)
        axes.plot(1, 0, marker="o", color=INK, markersize=8)
        axes.annotate("teacher", (1, 0), (-20, 9), textcoords="offset points")
        axes.set(title=title, aspect="equal")
        axes.set(xlim=(-2.9, 2.9), ylim=(-2.6, 2.6))
        _plain(axes)
    figure.savefig(file)


def draw_lengths(file: Path) -> None:
    """How hard each term moves a state, by its angle and by its length."""
    figure = Figure(figsize=(10, 4.2), dpi=130, facecolor="white")
    FigureCanvasAgg(figure)
    angles = torch.linspace(0.01, torch.pi, 181)
    lengths = torch.linspace(0.25, 4.0, 181)
    panels = (
        (
            "angle to the teacher, degrees; equal lengths",
            angles.rad2deg(),
            at(angles, torch.ones(181)),
        ),
        (
            "length of the student's state, teacher = 1; at 60°",
            lengths,
            at(torch.full((181,), torch.pi / 3), lengths),
        ),
    )
    for place, (label, along, states) in enumerate(panels):
        axes = figure.add_axes((0.07 + 0.48 * place, 0.15, 0.43, 0.75))
        for name, loss, color, line in (
            ("norm, squared", feature_norm_loss, NORM, "-"),
            ("cosine", feature_cosine_loss, COSINE, "-"),
            ("norm, not squared", distance_loss, DISTANCE, "--"),
        ):
            axes.plot(
                along,
                gradients(loss, states).norm(dim=1),
                color=color,
                linestyle=line,
                label=name,
                linewidth=2,
            )
        axes.set(xlabel=label, ylim=(0, None))
        axes.set_ylabel("length of the gradient" if not place else "")
        if not place:
            axes.set_xticks(range(0, 181, 30))
        _plain(axes)
        axes.legend(frameon=False, loc="upper left")
    figure.savefig(file)


def _plain(axes: Axes) -> None:
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, length=0)
    for side in axes.spines.values():
        side.set_color(BASELINE)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    with mpl.rc_context(STYLE):
        draw_directions(folder / "loss_directions.png")
        draw_lengths(folder / "loss_gradients.png")
