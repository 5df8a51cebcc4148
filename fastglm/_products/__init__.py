"""X of a batch of receivers as a few verbs, and everything that multiplies with it.

| file | contents |
|---|---|
| `protocol` | the interface to X that the solver uses |
| `local`, `shards` | X in memory; X in ranges of bins, each from its own source |
| `kinds` | the one table of the kinds of columns |
| `alike` | bins that have the same row |
| `pieces` | rounds of chunks of bins, and pieces of them for the threads |
| `sweep`, `history`, `rows` | ``X C`` and ``X' R`` chunk by chunk, from events and from rows |
| `sums` | ``X'Y``, ``X'1``, ``X'X`` from correlograms |
| `weighted_gram` | ``X' diag(w) X`` of rows |
| `event_gram` | the same from pairs of events, for some weights at a time |
"""
