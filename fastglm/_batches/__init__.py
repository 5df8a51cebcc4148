"""Many receivers: sorted into batches, planned, run, watched, and saved.

| file | what it does |
|---|---|
| `fit` | the way through: receivers with the same bins -> plan -> tasks -> results |
| `plan`, `cost` | which batches, by which method, with what memory and time |
| `executors` | where tasks run: in turn, or a thread each |
| `monitor`, `checkpoint` | progress, log, and the file that keeps what is finished |

A batch goes to the solver (`fastglm._engine`) as a `Task`, a value that can be pickled, and comes
back as a `Result` for each penalty.
"""
