"""Fig. 8: more guided Grad-CAM, of the runs of Fig. 5."""

from configs.experiments import fig5

COLUMNS, LABELS, ROWS = fig5.COLUMNS, fig5.LABELS, fig5.ROWS
PICTURES = {"videos": (*fig5.PICTURES["videos"][:-1], "--videos=6")}
