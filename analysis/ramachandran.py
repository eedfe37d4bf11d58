# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Ramachandran analysis of a run
#
# Backbone torsions of a run directory that `trip-mm run` made: populations of the Ramachandran
# states, their means and spreads, and the picture. `trip-mm analyze ramachandran RUN_DIR` does the
# same; start here to go further. Open with `jupytext --to notebook analysis/ramachandran.py`.

# %%
import os

import numpy as np

from trip_mm.analysis.plots import ramachandran_figure
from trip_mm.analysis.ramachandran import analyze_run
from trip_mm.analysis.states import THESIS, TILED

# %% [markdown]
# The run directory: set `TRIP_MM_RUN`, or write its path here.

# %%
run_dir = os.environ.get("TRIP_MM_RUN", "runs/trialanine")
result = analyze_run(run_dir)
print(f"{result.n_frames} frames, residues {', '.join(result.residues)}")

# %% [markdown]
# ## Populations
#
# Means and spreads are circular, in degrees; the error of a population accounts for the correlation
# of the frames, and is NaN for a state that is never entered or left. `tiled` covers the whole map
# once; `thesis` is Table 4 of the TrIP thesis as printed, where P_II and alpha_R overlap.

# %%
for states in (TILED, THESIS):
    statistics = result.pooled_statistics(states)
    print(f"\n{states.name}: unassigned {100 * statistics.unassigned:.1f} %")
    for row in statistics.states:
        print(
            f"{row.state:8} {100 * row.population:5.1f} +- {100 * row.standard_error:4.1f} %"
            f"  phi {row.phi_mean_deg:7.1f} +- {row.phi_spread_deg:5.1f}"
            f"  psi {row.psi_mean_deg:7.1f} +- {row.psi_spread_deg:5.1f}"
        )

# %% [markdown]
# ## Map

# %%
figure = ramachandran_figure(result, TILED)
figure

# %% [markdown]
# ## Has it converged?
#
# The running population of each state. Lines that still drift at the end say that the run is too
# short for its populations to mean anything.

# %%
membership = TILED.membership(result.phi_deg, result.psi_deg).mean(axis=-1)
running = np.cumsum(membership, axis=1) / np.arange(1, result.n_frames + 1)
for state, shares in zip(TILED.states, running, strict=True):
    quarters = shares[np.linspace(0, result.n_frames - 1, 5).round().astype(int)[1:]]
    print(f"{state.name:8}", "  ".join(f"{100 * share:5.1f} %" for share in quarters))
