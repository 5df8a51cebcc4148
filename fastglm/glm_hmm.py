"""NeMoS's GLMs with hidden states, which fastglm has not: the import says so."""

from fastglm._absent import refuse

refuse("glm_hmm", "fastglm")
