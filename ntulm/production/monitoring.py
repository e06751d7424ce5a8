"""The history of runs and checks: an Evidently workspace, `evidently ui --workspace monitoring`. Library only.

It is no output of a stage: DVC neither keeps nor removes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from evidently.core.report import Snapshot
from evidently.sdk.models import PanelMetric
from evidently.sdk.panels import line_plot_panel
from evidently.ui.workspace import Workspace

from ntulm.layout import Layout
from ntulm.provenance import provenance


@dataclass(frozen=True)
class Line:
    """One line of a panel: an Evidently metric and the labels that tell it from others of its class."""

    name: str
    metric: str
    labels: dict[str, str]


@dataclass(frozen=True)
class Panel:
    """A plot over time."""

    title: str
    lines: Sequence[Line]


def keep(snapshot: Snapshot, project: str, panels: Sequence[Panel], layout: Layout) -> None:
    """Add a run to a project of the workspace. The dashboard is drawn anew: its panels are those of the latest run."""
    workspace = Workspace.create(str(layout.monitoring))
    snapshot._metadata.update(provenance(layout))  # a report has it before it runs; this one says what ran
    found = next(iter(workspace.search_project(project)), None) or workspace.create_project(project)
    found.dashboard.clear_dashboard()
    for panel in panels:
        lines = [PanelMetric(metric=line.metric, metric_labels=line.labels, legend=line.name) for line in panel.lines]
        found.dashboard.add_panel(line_plot_panel(title=panel.title, values=lines))
    workspace.add_run(found.id, snapshot)
