"""NeMoS's registry of solvers, which fastglm has not: the import says so."""

from fastglm._absent import refuse

refuse("solvers", "fastglm")
