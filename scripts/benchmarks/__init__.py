"""Benchmarks of zmule beside its peers: the same work on the same machine in the same run.

Times on one machine vary from run to run by more than what one wants to see. So a `Line` lets all its
contestants do the same work in turns, round by round; what counts is the ratio of zmule's figure to a peer's
within a round, its median over the rounds, and how far it spreads.

- `line` measures in turns, and makes results of it.
- `sections` has the lines, one module each.
- `peers` has what they run against, one module each: how its server is started, how one sends and receives.
- `course` sends messages from some processes to others and takes the times, the same way for every peer;
  `board` is the memory in which these processes count, `roles` is what runs in them.
- `bars` compares results with what was set out to be reached; `report`, `page` and `plots` show them.
"""
