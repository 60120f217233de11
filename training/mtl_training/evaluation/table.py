"""Figures of several predictors side by side, as a table in Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from mtl_training.evaluation.judge import Report
from mtl_training.tasks import Figure, TaskSet


def markdown(reports: Mapping[str, Report], tasks: TaskSet) -> str:
    """The figures of several predictors, with the first one's IoU of every class below."""
    lines = ['| | ' + ' | '.join(reports) + ' |', '|---' * (len(reports) + 1) + '|']
    for name, task in tasks.items():
        ece = Figure('ece', f'{name.replace("_", " ")} confidence ECE, %', 100, 1)
        for figure in (*task.figures, ece):
            values = [report.get(name, {}).get(figure.key) for report in reports.values()]
            if any(value is not None for value in values):
                cells = [
                    '' if v is None else f'{v * figure.factor:.{figure.digits}f}' for v in values
                ]
                lines.append(f'| {figure.title} | ' + ' | '.join(cells) + ' |')
    for name, figures in next(iter(reports.values())).items():
        classes = [
            f'{key.removeprefix("iou_")} {100 * iou:.0f}'
            for key, iou in figures.items()
            if key.startswith('iou_')
        ]
        if classes:
            title = name.replace('_', ' ')
            lines += ['', f'IoU by class, %, {title}: ' + ', '.join(classes) + '.']
    return '\n'.join(lines)
