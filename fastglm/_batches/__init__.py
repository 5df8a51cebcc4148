"""Many receivers: sorted into batches, planned, run, watched, and saved.

| file | contents |
|---|---|
| `fit` | the whole way: receivers with the same bins -> plan -> tasks -> results |
| `plan`, `cost` | the batches, their methods, and their memory and time |
| `executors` | where tasks run: one after another, a thread each, or with an executor of the user |
| `jobs` | what a worker of the user's executor does |
| `spread` | sums over groups of shards, made by the workers of one fit |
| `mapped` | what tasks share, in files that workers map |
| `monitor`, `checkpoint` | progress, log, and the file that keeps finished receivers |

A batch goes to the solver (`fastglm._engine`) as a `Task`, a value that can be pickled, and comes
back as a `Result` for each penalty.
"""
